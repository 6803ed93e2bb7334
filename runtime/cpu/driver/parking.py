"""How a thread of the native driver sleeps and is roused, as textual LLVM IR per platform.

Each platform defines `prepare(control)` for a new control block, `sleep(control, slot)`, which
returns at once if the slot's first word is not 1, and may return for no reason, `rouse(control,
slot)` after that word has become 0, and `awake(control, slot)` for what a thread does after sleep.
Slots are described in `driver_layout.Control`.
"""

from __future__ import annotations

# Number of the system call `futex` by machine.
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}

# Linux: a futex, 128 is FUTEX_WAIT_PRIVATE and 129 FUTEX_WAKE_PRIVATE. A worker is roused away
# from the core of whoever rouses it, and may roam again once it is up. Left to itself, Linux in a
# virtual machine takes a halted core for one the host has taken away, so it queues the worker
# behind its caller: after 5 ms of silence it came 2.9 ms late, so steered 0.1 ms.
_BY_FUTEX = """
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()
declare i32 @sched_setaffinity(i32, i64, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

define void @prepare(ptr %control) nounwind {
  ret void
}

define private void @sleep(ptr %control, ptr %slot) nounwind {
  %status = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %slot, i32 128, i32 1, ptr null)
  ret void
}

define private void @rouse(ptr %control, ptr %slot) nounwind {
entry:
  %away = alloca [$CORES_BYTES x i8], align 8
  %thread.at = getelementptr i8, ptr %slot, i64 4
  %thread = load i32, ptr %thread.at, align 4
  %steered = icmp ne i32 %thread, 0
  br i1 %steered, label %steer, label %wake
steer:
  %cores = getelementptr i8, ptr %control, i64 $CORES
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %away, ptr align 8 %cores, i64 $CORES_BYTES,
                                   i1 false)
  %core = call i32 @sched_getcpu()
  %known = icmp ult i32 %core, $CORES_BITS
  br i1 %known, label %bar, label %wake
bar:
  %byte = lshr i32 %core, 3
  %byte.at = getelementptr i8, ptr %away, i32 %byte
  %bit = and i32 %core, 7
  %one = shl i32 1, %bit
  %one.byte = trunc i32 %one to i8
  %others = xor i8 %one.byte, -1
  %old = load i8, ptr %byte.at, align 1
  %new = and i8 %old, %others
  store i8 %new, ptr %byte.at, align 1
  ; No core left: the system refuses, and nothing changes.
  %status.a = call i32 @sched_setaffinity(i32 %thread, i64 $CORES_BYTES, ptr %away)
  br label %wake
wake:
  %status = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %slot, i32 129, i32 1)
  ret void
}

define private void @awake(ptr %control, ptr %slot) nounwind {
entry:
  %thread.at = getelementptr i8, ptr %slot, i64 4
  %thread = load i32, ptr %thread.at, align 4
  %steered = icmp ne i32 %thread, 0
  br i1 %steered, label %roam, label %done
roam:
  %cores = getelementptr i8, ptr %control, i64 $CORES
  %status = call i32 @sched_setaffinity(i32 0, i64 $CORES_BYTES, ptr %cores)
  br label %done
done:
  ret void
}
"""

# What POSIX has everywhere. One condition for all: a thread that was not meant sleeps again.
_BY_CONDITION = """
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define void @prepare(ptr %control) nounwind {
  %mutex = getelementptr i8, ptr %control, i64 $MUTEX
  %condition = getelementptr i8, ptr %control, i64 $CONDITION
  %status.m = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %status.c = call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}

define private void @sleep(ptr %control, ptr %slot) nounwind {
  %mutex = getelementptr i8, ptr %control, i64 $MUTEX
  %condition = getelementptr i8, ptr %control, i64 $CONDITION
  %status.l = call i32 @pthread_mutex_lock(ptr %mutex)
  br label %check
check:
  %value = load atomic i32, ptr %slot monotonic, align 4
  %asleep = icmp eq i32 %value, 1
  br i1 %asleep, label %wait, label %up
wait:
  %status.w = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
up:
  %status.u = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define private void @rouse(ptr %control, ptr %slot) nounwind {
  %mutex = getelementptr i8, ptr %control, i64 $MUTEX
  %condition = getelementptr i8, ptr %control, i64 $CONDITION
  %status.l = call i32 @pthread_mutex_lock(ptr %mutex)
  %status.b = call i32 @pthread_cond_broadcast(ptr %condition)
  %status.u = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define private void @awake(ptr %control, ptr %slot) nounwind {
  ret void
}
"""


def parking_text(machine: str, system: str, futex: bool = True) -> tuple[str, dict[str, object]]:
    """Return the functions for a platform and what `$` names in them mean."""
    if futex and "linux" in system and machine in _FUTEX:
        return _BY_FUTEX, {"FUTEX": _FUTEX[machine]}
    return _BY_CONDITION, {}
