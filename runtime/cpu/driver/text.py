"""The native driver as textual LLVM IR: runs a plan with the threads that happen to be there.

A plan is an array of records (kernel, arguments, chunks, after) in groups, which run in order: a
group starts when every chunk of the one before it is done. `after` counts the chunks of the records
behind this one in its group, and is 0 for the last or only one. A kernel is

    void kernel(ptr arguments, ptr frame, i64 begin, i64 end)      chunks begin .. end - 1

Chunks are cut by whoever makes the plan, never by the number of threads, and any thread may run
any of them, so results do not depend on the threads. `frame` belongs to one call; its first word
is the error word. A kernel reports a fault by `atomicrmw umax ptr %frame, i64 CODE monotonic`
(the greatest code wins, whatever the order); no group after that one is run.

How threads share a run, in the words of a control block:

- LEFT counts the chunks of the current group that nobody has taken. One is taken from it by
  compare-and-swap, and only then is a record read: a run cannot end while a chunk is owned. So a
  thread that slept between reading LEFT and swapping it, through a group or through a thousand
  calls, fails, or takes a chunk that is really there. (A barrier whose counter was reset while a
  late thread still read it hung once in some ten thousand calls.)
- What was left says which chunk of which record it is. Its owner tries to take a share of what is
  left of that record with it: fewer swaps, and chunks side by side. It looks for records from where
  it found its last one, if that was in the same group: STARTED is the group's number.
- PENDING counts the chunks of the group that are not done. Only owners of a chunk touch it. Who
  brings it to 0 is alone with the run, and starts the next group. Groups of one chunk it runs on
  the spot, without telling anybody.
- Nobody waits for a thread that has not taken a chunk. So dead workers (after a fork), parked ones
  or ones that are late cost nothing but their help.
- A thread that finds nothing to do polls for SPIN_NS, then parks in the kernel: it says so in its
  slot, looks once more, and sleeps. Who starts a group or ends a run does it the other way round:
  that first, then a look at the slots. Both are sequentially consistent, so one sees the other.
- Who starts a group rouses two threads at most, and who is roused two more as long as chunks are
  left: rousing one takes 10 us and more where cores are virtual, and the first has work to do.
- A run that costs less than WAKE_NS leaves parked workers alone, unless calls follow each other so
  closely that workers, once up, stay up: waking one takes longer than such a run.
"""

from __future__ import annotations

from string import Template

from tracegraph.runtime.cpu.driver.layout import CORES_BYTES, RECORD_WORDS, Control
from tracegraph.runtime.cpu.driver.parking import parking_text
from tracegraph.runtime.cpu.driver.serving import SERVE

# How a thread that polls eases off: an intrinsic, its argument types, its arguments. On AArch64
# the hint `yield` does nothing, `isb` waits.
_ISB = ("llvm.aarch64.isb", "i32", "i32 15")
_PAUSES = {"x86_64": ("llvm.x86.sse2.pause", "", ""), "aarch64": _ISB, "arm64": _ISB}
_DRIVER = """
declare i32 @clock_gettime(i32, ptr)

; Nanoseconds of the monotonic clock: 23 ns a call where it needs no system call.
define private i64 @now() nounwind {
  %time = alloca [2 x i64], align 8
  %status = call i32 @clock_gettime(i32 $CLOCK, ptr %time)
  %seconds = load i64, ptr %time, align 8
  %rest.at = getelementptr i8, ptr %time, i64 8
  %rest = load i64, ptr %rest.at, align 8
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}

define private void @apply(ptr %record, ptr %frame, i64 %begin, i64 %end) nounwind alwaysinline {
  %kernel = load ptr, ptr %record, align 8
  %arguments.at = getelementptr i8, ptr %record, i64 8
  %arguments = load ptr, ptr %arguments.at, align 8
  call void %kernel(ptr %arguments, ptr %frame, i64 %begin, i64 %end)
  ret void
}

; Rouse up to %want parked threads, the caller first.
define private void @wake(ptr %control, i64 %slots, i64 %want) nounwind {
entry:
  br label %check
check:
  %slot = phi i64 [0, %entry], [%slot.next, %next]
  %left = phi i64 [%want, %entry], [%left.next, %next]
  %slots.over = icmp uge i64 %slot, %slots
  %want.over = icmp eq i64 %left, 0
  %over = or i1 %slots.over, %want.over
  br i1 %over, label %done, label %look
look:
  %offset = mul i64 %slot, 8
  %place = add i64 %offset, $SLOTS
  %flag = getelementptr i8, ptr %control, i64 %place
  %seen = load atomic i32, ptr %flag seq_cst, align 4
  %seen.parked = icmp eq i32 %seen, 1
  br i1 %seen.parked, label %take, label %next
take:
  %before = atomicrmw xchg ptr %flag, i32 0 seq_cst
  %mine = icmp eq i32 %before, 1
  br i1 %mine, label %ring, label %next
ring:
  call void @rouse(ptr %control, ptr %flag)
  %left.less = sub i64 %left, 1
  br label %next
next:
  %left.next = phi i64 [%left, %look], [%left, %take], [%left.less, %ring]
  %slot.next = add i64 %slot, 1
  br label %check
done:
  ret void
}

; Start the next group, or end the run. Called by one thread at a time: whoever did the last chunk.
define private void @advance(ptr %control) nounwind {
entry:
  %left.at = getelementptr i8, ptr %control, i64 $LEFT
  %started.at = getelementptr i8, ptr %control, i64 $STARTED
  %finished.at = getelementptr i8, ptr %control, i64 $FINISHED
  %pending.at = getelementptr i8, ptr %control, i64 $PENDING
  %next.at = getelementptr i8, ptr %control, i64 $NEXT
  %end.at = getelementptr i8, ptr %control, i64 $END
  %current.at = getelementptr i8, ptr %control, i64 $CURRENT
  %frame.at = getelementptr i8, ptr %control, i64 $FRAME
  %wakes.at = getelementptr i8, ptr %control, i64 $WAKES
  %frame = load ptr, ptr %frame.at, align 8
  %end = load ptr, ptr %end.at, align 8
  %first = load ptr, ptr %next.at, align 8
  br label %check
check:
  %record = phi ptr [%first, %entry], [%following, %take], [%following, %here]
  %error = load atomic i64, ptr %frame monotonic, align 8
  %faulty = icmp ne i64 %error, 0
  %through = icmp eq ptr %record, %end
  %over = or i1 %faulty, %through
  br i1 %over, label %finish, label %take
take:
  %following = getelementptr i8, ptr %record, i64 $RECORD_BYTES
  %own.at = getelementptr i8, ptr %record, i64 16
  %own = load i64, ptr %own.at, align 8
  %after.at = getelementptr i8, ptr %record, i64 24
  %after = load i64, ptr %after.at, align 8
  %chunks = add i64 %own, %after
  %empty = icmp sle i64 %chunks, 0
  br i1 %empty, label %check, label %some
some:
  %others = sub i64 %chunks, 1
  %single = icmp eq i64 %others, 0
  br i1 %single, label %here, label %skip
here:
  call void @apply(ptr %record, ptr %frame, i64 0, i64 1)
  br label %check
skip:
  %member = phi ptr [%record, %some], [%beyond, %skip]
  %beyond = getelementptr i8, ptr %member, i64 $RECORD_BYTES
  %behind.at = getelementptr i8, ptr %member, i64 24
  %behind = load i64, ptr %behind.at, align 8
  %inside = icmp ne i64 %behind, 0
  br i1 %inside, label %skip, label %start
start:
  store ptr %beyond, ptr %next.at, align 8
  store ptr %record, ptr %current.at, align 8
  store atomic i64 %chunks, ptr %pending.at monotonic, align 8
  %slots = load i64, ptr %wakes.at, align 8
  %started = load atomic i64, ptr %started.at monotonic, align 8
  %started.more = add i64 %started, 1
  store atomic i64 %started.more, ptr %started.at monotonic, align 8
  store atomic i64 %chunks, ptr %left.at seq_cst, align 8
  ; From here on others may finish the group, the run, and begin another: only %slots is ours.
  %want = call i64 @llvm.umin.i64(i64 %others, i64 $ROUSED)
  call void @wake(ptr %control, i64 %slots, i64 %want)
  ret void
finish:
  store atomic i64 1, ptr %finished.at seq_cst, align 8
  call void @wake(ptr %control, i64 1, i64 1)
  ret void
}

; The whole plan by this thread alone: no word of any control block is touched.
define private i64 @alone(ptr %records, i64 %count, ptr %frame) nounwind {
entry:
  %bytes = mul i64 %count, $RECORD_BYTES
  %end = getelementptr i8, ptr %records, i64 %bytes
  br label %check
check:
  %record = phi ptr [%records, %entry], [%following, %take], [%following, %here]
  %error = load atomic i64, ptr %frame monotonic, align 8
  %faulty = icmp ne i64 %error, 0
  %through = icmp eq ptr %record, %end
  %over = or i1 %faulty, %through
  br i1 %over, label %done, label %take
take:
  %following = getelementptr i8, ptr %record, i64 $RECORD_BYTES
  %chunks.at = getelementptr i8, ptr %record, i64 16
  %chunks = load i64, ptr %chunks.at, align 8
  %empty = icmp sle i64 %chunks, 0
  br i1 %empty, label %check, label %here
here:
  call void @apply(ptr %record, ptr %frame, i64 0, i64 %chunks)
  br label %check
done:
  ret i64 %error
}

; Run a call with the threads of a pool; alone without a pool or while another caller has it.
; Returns the error word.
define i64 @run(ptr %control, ptr %call) nounwind {
entry:
  %records = load ptr, ptr %call, align 8
  %count.at = getelementptr i8, ptr %call, i64 8
  %count = load i64, ptr %count.at, align 8
  %frame.at = getelementptr i8, ptr %call, i64 16
  %frame = load ptr, ptr %frame.at, align 8
  store i64 0, ptr %frame, align 8
  %lone = icmp eq ptr %control, null
  br i1 %lone, label %single, label %try
try:
  %lock.at = getelementptr i8, ptr %control, i64 $LOCK
  %pair = cmpxchg ptr %lock.at, i64 0, i64 1 acquire monotonic, align 8
  %mine = extractvalue {i64, i1} %pair, 1
  br i1 %mine, label %pooled, label %single
single:
  %error.single = call i64 @alone(ptr %records, i64 %count, ptr %frame)
  ret i64 %error.single

pooled:
  %cost.at = getelementptr i8, ptr %call, i64 24
  %cost = load i64, ptr %cost.at, align 8
  %wake.at = getelementptr i8, ptr %control, i64 $WAKE_NS
  %wake = load i64, ptr %wake.at, align 8
  %last.at = getelementptr i8, ptr %control, i64 $LAST_END
  %last = load i64, ptr %last.at, align 8
  %spin.at = getelementptr i8, ptr %control, i64 $SPIN_NS
  %spin = load i64, ptr %spin.at, align 8
  %start = call i64 @now()
  %gap = sub i64 %start, %last
  %hot = icmp slt i64 %gap, %spin
  %dear = icmp sge i64 %cost, %wake
  %rousing = or i1 %hot, %dear
  %workers.at = getelementptr i8, ptr %control, i64 $WORKERS
  %workers = load i64, ptr %workers.at, align 8
  %all = add i64 %workers, 1
  %slots = select i1 %rousing, i64 %all, i64 1

  %bytes = mul i64 %count, $RECORD_BYTES
  %end = getelementptr i8, ptr %records, i64 %bytes
  %next.at = getelementptr i8, ptr %control, i64 $NEXT
  %end.at = getelementptr i8, ptr %control, i64 $END
  %frame.place = getelementptr i8, ptr %control, i64 $FRAME
  %wakes.at = getelementptr i8, ptr %control, i64 $WAKES
  %finished.at = getelementptr i8, ptr %control, i64 $FINISHED
  store ptr %records, ptr %next.at, align 8
  store ptr %end, ptr %end.at, align 8
  store ptr %frame, ptr %frame.place, align 8
  store i64 %slots, ptr %wakes.at, align 8
  store atomic i64 0, ptr %finished.at monotonic, align 8
  call void @advance(ptr %control)
  call void @serve(ptr %control, i64 0, ptr %finished.at)
  %finish = call i64 @now()
  store i64 %finish, ptr %last.at, align 8
  store atomic i64 0, ptr %lock.at release, align 8
  %error = load i64, ptr %frame, align 8
  ret i64 %error
}

; Send the workers out of `serve` as soon as they find nothing to do.
define void @stop(ptr %control) nounwind {
  %stop.at = getelementptr i8, ptr %control, i64 $STOP
  %workers.at = getelementptr i8, ptr %control, i64 $WORKERS
  %workers = load i64, ptr %workers.at, align 8
  %slots = add i64 %workers, 1
  store atomic i64 1, ptr %stop.at seq_cst, align 8
  call void @wake(ptr %control, i64 %slots, i64 %slots)
  ret void
}

declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
"""


def driver_text(triple: str, futex: bool = True) -> str:
    """Return the driver for a platform; without `futex` it parks as it does where there is none."""
    machine, _, system = triple.partition("-")
    pause, types, arguments = _PAUSES.get(machine, ("llvm.donothing", "", ""))
    parking, its_settings = parking_text(machine, system, futex)
    settings: dict[str, object] = {place.name: place.value for place in Control} | {
        "CLOCK": 6 if "darwin" in system or "macos" in system else 1,  # CLOCK_MONOTONIC
        "CORES_BITS": 8 * CORES_BYTES,
        "CORES_BYTES": CORES_BYTES,
        "PAUSE": f"call void @{pause}({arguments})",
        "RECORD_BYTES": 8 * RECORD_WORDS,
        "ROUSED": 2,
    }
    text = Template(parking + _DRIVER + SERVE).substitute(settings | its_settings)
    return f"{text}declare void @{pause}({types})\n"
