"""How a thread takes chunks, as textual LLVM IR; `text` tells why it may."""

from __future__ import annotations

SERVE = """
; Take chunks until the word at %exit is not 0. A worker's exit is STOP, a caller's FINISHED.
define void @serve(ptr %control, i64 %slot, ptr %exit) nounwind {
entry:
  %left.at = getelementptr i8, ptr %control, i64 $LEFT
  %started.at = getelementptr i8, ptr %control, i64 $STARTED
  %pending.at = getelementptr i8, ptr %control, i64 $PENDING
  %current.at = getelementptr i8, ptr %control, i64 $CURRENT
  %frame.at = getelementptr i8, ptr %control, i64 $FRAME
  %spin.at = getelementptr i8, ptr %control, i64 $SPIN_NS
  %shift.at = getelementptr i8, ptr %control, i64 $SHARE_SHIFT
  %workers.at = getelementptr i8, ptr %control, i64 $WORKERS
  %cursor.at = alloca ptr, align 8
  %group.at = alloca i64, align 8
  store i64 0, ptr %group.at, align 8
  %offset = mul i64 %slot, 8
  %place = add i64 %offset, $SLOTS
  %flag = getelementptr i8, ptr %control, i64 %place
  %spin = load i64, ptr %spin.at, align 8
  %shift = load i64, ptr %shift.at, align 8
  br label %look
look:
  %started = load atomic i64, ptr %started.at monotonic, align 8
  br label %poll
poll:
  %polls = phi i64 [0, %look], [%polls.next, %pause], [%polls.next, %time]
  %deadline = phi i64 [0, %look], [%deadline, %pause], [%deadline.next, %time]
  %left = load atomic i64, ptr %left.at monotonic, align 8
  %some = icmp ne i64 %left, 0
  br i1 %some, label %take, label %idle

take:
  %less = sub i64 %left, 1
  %pair = cmpxchg weak ptr %left.at, i64 %left, i64 %less acquire monotonic, align 8
  %mine = extractvalue {i64, i1} %pair, 1
  br i1 %mine, label %own, label %look
own:
  %frame = load ptr, ptr %frame.at, align 8
  %first = load ptr, ptr %current.at, align 8
  %group = load atomic i64, ptr %started.at monotonic, align 8
  %group.before = load i64, ptr %group.at, align 8
  %cursor = load ptr, ptr %cursor.at, align 8
  %same = icmp eq i64 %group, %group.before
  %from = select i1 %same, ptr %cursor, ptr %first
  br label %find
find:
  %record = phi ptr [%from, %own], [%record.next, %find]
  %record.next = getelementptr i8, ptr %record, i64 $RECORD_BYTES
  %after.at = getelementptr i8, ptr %record, i64 24
  %after = load i64, ptr %after.at, align 8
  %beyond = icmp sle i64 %left, %after
  br i1 %beyond, label %find, label %found
found:
  store ptr %record, ptr %cursor.at, align 8
  store i64 %group, ptr %group.at, align 8
  %inside = sub i64 %left, %after
  %part = lshr i64 %inside, %shift
  %several = icmp ugt i64 %part, 1
  br i1 %several, label %more, label %work
more:
  %less.part = sub i64 %left, %part
  %pair.part = cmpxchg ptr %left.at, i64 %less, i64 %less.part monotonic monotonic, align 8
  %mine.part = extractvalue {i64, i1} %pair.part, 1
  %share.part = select i1 %mine.part, i64 %part, i64 1
  br label %work
work:
  %share = phi i64 [1, %found], [%share.part, %more]
  %chunks.at = getelementptr i8, ptr %record, i64 16
  %chunks = load i64, ptr %chunks.at, align 8
  %begin = sub i64 %chunks, %inside
  %end = add i64 %begin, %share
  call void @apply(ptr %record, ptr %frame, i64 %begin, i64 %end)
  %pending = atomicrmw sub ptr %pending.at, i64 %share acq_rel
  %last = icmp eq i64 %pending, %share
  br i1 %last, label %move, label %look
move:
  call void @advance(ptr %control)
  br label %look

idle:
  %leave = load atomic i64, ptr %exit acquire, align 8
  %leaving = icmp ne i64 %leave, 0
  br i1 %leaving, label %done, label %pause
pause:
  $PAUSE
  %polls.next = add i64 %polls, 1
  %round = and i64 %polls.next, 31
  %due = icmp eq i64 %round, 0
  br i1 %due, label %clock, label %poll
clock:
  ; Groups that others were quicker to take are a sign of life too: poll on.
  %started.now = load atomic i64, ptr %started.at monotonic, align 8
  %alive = icmp ne i64 %started.now, %started
  br i1 %alive, label %look, label %time
time:
  %now = call i64 @now()
  %unset = icmp eq i64 %deadline, 0
  %fresh = add i64 %now, %spin
  %deadline.next = select i1 %unset, i64 %fresh, i64 %deadline
  %late = icmp sge i64 %now, %deadline.next
  br i1 %late, label %park, label %poll

park:
  store atomic i32 1, ptr %flag seq_cst, align 4
  %left.again = load atomic i64, ptr %left.at seq_cst, align 8
  %some.again = icmp ne i64 %left.again, 0
  %leave.again = load atomic i64, ptr %exit seq_cst, align 8
  %leaving.again = icmp ne i64 %leave.again, 0
  %up = or i1 %some.again, %leaving.again
  br i1 %up, label %unpark, label %asleep
asleep:
  call void @sleep(ptr %control, ptr %flag)
  %parked = load atomic i32, ptr %flag acquire, align 4
  %still = icmp eq i32 %parked, 1
  br i1 %still, label %asleep, label %back
back:
  call void @awake(ptr %control, ptr %flag)
  %left.back = load atomic i64, ptr %left.at monotonic, align 8
  %want = call i64 @llvm.umin.i64(i64 %left.back, i64 $ROUSED)
  %workers = load i64, ptr %workers.at, align 8
  %slots = add i64 %workers, 1
  call void @wake(ptr %control, i64 %slots, i64 %want)
  br label %look
unpark:
  %mark = atomicrmw xchg ptr %flag, i32 0 monotonic
  %unseen = icmp eq i32 %mark, 1
  br i1 %unseen, label %look, label %back
done:
  ret void
}
"""
