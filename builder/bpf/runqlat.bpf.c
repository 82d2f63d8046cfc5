// SPDX-License-Identifier: MIT OR Apache-2.0
//
// How long threads that could run waited for a CPU, and who had it meanwhile.
//
// A wait begins when a thread is woken up, or is taken off its CPU while it could run on,
// and ends when it is switched in, on whichever CPU. Who had the CPU is in a log of the
// last runs on each CPU. Whether a quota kept a thread waiting is in the thread (Linux
// 6.18) or in its run queue.

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;

// ---- the kernel's types, as far as they are read ----

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct cfs_rq {
	u64 throttled_clock_pelt_time;
};

// Before Linux 5.19.
struct cfs_rq___task {
	u64 throttled_clock_task_time;
};

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct task_struct {
	unsigned int flags;
	unsigned int __state;
	struct sched_entity se;
	int pid;
	int tgid;
	int on_cpu;
	int wake_cpu;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	char comm[16];
};

// Since Linux 6.18.
struct task_struct___throttled {
	_Bool throttled;
};

#pragma clang attribute pop

// include/linux/sched.h
#define PF_KTHREAD 0x00200000
#define TASK_RUNNING 0
#define TASK_DEAD 0x80

// ---- what imgbuild and this program agree on: builder/src/runqlat/kernel.rs ----

// Buckets of powers of two microseconds.
#define BUCKETS 27

// Groups of threads: of no guest, of a guest that is in none of the others, those that
// imgbuild names, such as fleets, and none at all. A power of two.
enum group { HOST, STRANGER, FIRST, IDLE = 7, GROUPS };

enum class { VCPU, VMM, IO, OTHER, CLASSES };

// Who had the CPU.
enum cause { SAME, ANOTHER, OF_HOST, QUOTA, NOBODY, CAUSES };

// A guest that is not known yet.
#define NO_SLOT 0xffffffff

struct process {
	u32 group;
	// Place in `guests`.
	u32 slot;
	// Its children belong to the group, and it does not.
	u32 is_parent;
	// So do its children.
	u32 inherits;
};

struct waits {
	u64 count;
	u64 nanoseconds;
	u64 longest;
	u64 above;
	u64 buckets[BUCKETS];
};

// The first wait that was too long.
struct first {
	u64 claimed;
	u64 nanoseconds;
	u32 cpu;
	u32 pid;
	u32 tgid;
	u32 cause;
	u32 behind_pid;
	u32 behind_tgid;
	char comm[16];
	char behind_comm[16];
};

// Groups whose waits are counted: [from, to).
const volatile u32 from_group = FIRST;
const volatile u32 to_group = FIRST + 1;
// Waits that are counted as long, in nanoseconds.
const volatile u64 threshold = 10000000;
const volatile u8 with_causes = 1;
const volatile u8 with_guests;
const volatile u8 with_first;

// What changes while it runs.
struct state {
	// Waits of threads for which there was no place.
	u64 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct process);
} processes SEC(".maps");

// Another number whenever `processes` changes.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} generation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct state);
} state SEC(".maps");

// What is known of a thread.
struct thread {
	// When it began to wait, and for which CPU; 0 while it does not wait.
	u64 since;
	u32 cpu;
	// The time for which its run queue had been throttled, and which queue that was.
	u64 throttled_for;
	u64 queue;
	u32 generation;
	u32 group;
	u32 slot;
	u32 was_throttled;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct thread);
} threads SEC(".maps");

// By group, class and cause.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct waits);
} waits SEC(".maps");

// By the slot of a guest.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct waits);
} guests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct first);
} first SEC(".maps");

// The last runs on a CPU, in a ring; a power of two.
#define RUNS 64

struct log {
	u32 next;
	u32 groups[RUNS];
	u64 ends[RUNS];
	// For one look back: how long each group had the CPU.
	u64 had[GROUPS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct log);
} logs SEC(".maps");

static __always_inline u32 name_of(struct task_struct *task)
{
	// The first four characters.
	return *(u32 *)task->comm;
}

#define CPU_ 0x20555043 /* "CPU " */
#define QEMU 0x756d6571 /* "qemu" */

static __always_inline int is_vmm(struct task_struct *task)
{
	return name_of(task->group_leader) == QEMU;
}

static __always_inline enum class class_of(struct task_struct *task, u32 group)
{
	if (name_of(task) == CPU_)
		return VCPU;
	if (group == HOST || !is_vmm(task))
		return OTHER;
	return task->pid == task->tgid ? VMM : IO;
}

static __always_inline void find_group(struct task_struct *task, struct thread *thread)
{
	u32 tgid = task->tgid;
	struct process *process = bpf_map_lookup_elem(&processes, &tgid);

	thread->slot = NO_SLOT;
	if (process && !process->is_parent) {
		thread->group = process->group;
		thread->slot = process->slot;
		return;
	}
	tgid = task->group_leader->real_parent->tgid;
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (process && (process->is_parent || process->inherits))
		thread->group = process->group;
	else
		thread->group = is_vmm(task) ? STRANGER : HOST;
}

static __always_inline void lose(void)
{
	u32 zero = 0;
	struct state *counted = bpf_map_lookup_elem(&state, &zero);

	if (counted)
		__sync_fetch_and_add(&counted->lost, 1);
}

static __always_inline struct thread *known(struct task_struct *task)
{
	u32 pid = task->pid, zero = 0;
	u32 *now = bpf_map_lookup_elem(&generation, &zero);
	struct thread *thread = bpf_map_lookup_elem(&threads, &pid);

	if (!now)
		return 0;
	if (!thread) {
		struct thread new = { .generation = *now };

		find_group(task, &new);
		if (bpf_map_update_elem(&threads, &pid, &new, BPF_ANY)) {
			lose();
			return 0;
		}
		return bpf_map_lookup_elem(&threads, &pid);
	}
	if (thread->generation != *now) {
		find_group(task, thread);
		thread->generation = *now;
	}
	return thread;
}

static __always_inline int is_throttled(struct task_struct *task)
{
	struct task_struct___throttled *newer = (void *)task;

	if (bpf_core_field_exists(newer->throttled))
		return BPF_CORE_READ(newer, throttled);
	return 0;
}

static __always_inline u64 throttled_for(struct cfs_rq *queue)
{
	struct cfs_rq___task *older = (void *)queue;
	struct task_struct___throttled *newer = 0;

	// There the queue's account has another meaning.
	if (bpf_core_field_exists(newer->throttled))
		return 0;
	if (bpf_core_field_exists(queue->throttled_clock_pelt_time))
		return BPF_CORE_READ(queue, throttled_clock_pelt_time);
	if (bpf_core_field_exists(older->throttled_clock_task_time))
		return BPF_CORE_READ(older, throttled_clock_task_time);
	return 0;
}

static __always_inline u32 bucket_of(u64 nanoseconds)
{
	u64 rest = nanoseconds / 1000;
	u32 bucket = 0, step;

#pragma unroll
	for (step = 32; step; step >>= 1)
		if (rest >> step) {
			rest >>= step;
			bucket += step;
		}
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

// Writes down that a run of a thread of `group` ended.
static __always_inline void write_down(struct log *log, u32 group, u64 now)
{
	u32 next = log->next & (RUNS - 1);

	log->groups[next] = group;
	log->ends[next] = now;
	log->next = next + 1;
}

// Who had this CPU longest since `since`; where that is longer ago than the log goes
// back, in the time of the log. A thread that was moved here waited behind somebody.
// The verifier looks at a function of its own once, whoever calls it.
__attribute__((noinline)) int cause_of(struct log *log, u32 group, u64 since, int was_moved,
				       u64 throttled)
{
	u64 same, of_host, nobody, another = 0, most;
	u32 at, back, other;
	enum cause cause = SAME;

	if (!log)
		return NOBODY;
	at = log->next - 1;
#pragma unroll
	for (other = 0; other < GROUPS; other++)
		log->had[other] = 0;
	for (back = 0; back < RUNS - 1; back++, at--) {
		u64 end = log->ends[at & (RUNS - 1)];
		u64 from = log->ends[(at - 1) & (RUNS - 1)];

		if (end <= since)
			break;
		if (from < since)
			from = since;
		log->had[log->groups[at & (RUNS - 1)] & (GROUPS - 1)] += end - from;
	}
	group &= GROUPS - 1;
	same = log->had[group];
	of_host = group == HOST ? 0 : log->had[HOST];
	nobody = was_moved ? 0 : log->had[IDLE];
#pragma unroll
	for (other = STRANGER; other < IDLE; other++)
		another += log->had[other];
	if (group != HOST)
		another -= same;

	most = same;
	if (another > most) {
		most = another;
		cause = ANOTHER;
	}
	if (of_host > most) {
		most = of_host;
		cause = OF_HOST;
	}
	if (nobody > most) {
		most = nobody;
		cause = NOBODY;
	}
	if (throttled > most)
		return QUOTA;
	return most ? cause : NOBODY;
}

static __always_inline void count(struct waits *waits, u64 wait, u32 bucket)
{
	waits->count++;
	waits->nanoseconds += wait;
	if (wait > waits->longest)
		waits->longest = wait;
	if (wait > threshold)
		waits->above++;
	if (bucket < BUCKETS)
		waits->buckets[bucket]++;
}

// The same where several CPUs count.
static __always_inline void count_shared(struct waits *waits, u64 wait, u32 bucket)
{
	__sync_fetch_and_add(&waits->count, 1);
	__sync_fetch_and_add(&waits->nanoseconds, wait);
	// A thread's waits end on one CPU at a time; a guest has few threads.
	if (wait > waits->longest)
		waits->longest = wait;
	if (wait > threshold)
		__sync_fetch_and_add(&waits->above, 1);
	if (bucket < BUCKETS)
		__sync_fetch_and_add(&waits->buckets[bucket], 1);
}

static __always_inline void claim(struct task_struct *prev, struct task_struct *next, u64 wait,
				  u32 cause)
{
	u32 zero = 0;
	struct first *one = bpf_map_lookup_elem(&first, &zero);

	if (!one || __sync_val_compare_and_swap(&one->claimed, 0, 1))
		return;
	one->nanoseconds = wait;
	one->cpu = bpf_get_smp_processor_id();
	one->pid = next->pid;
	one->tgid = next->tgid;
	one->cause = cause;
	one->behind_pid = prev->pid;
	one->behind_tgid = prev->tgid;
	bpf_probe_read_kernel(one->comm, sizeof(one->comm), next->comm);
	bpf_probe_read_kernel(one->behind_comm, sizeof(one->behind_comm), prev->comm);
	// Whoever reads it sees the rest, too.
	__sync_fetch_and_add(&one->claimed, 1);
}

static __always_inline int is_counted(u32 group)
{
	return group >= from_group && group < to_group;
}

// Notes that a thread waits from now on, unless it waits already.
static __always_inline void begin(struct thread *thread, u32 cpu, u64 now)
{
	if (thread->since || !is_counted(thread->group))
		return;
	thread->since = now;
	thread->cpu = cpu;
}

static __always_inline int is_left_out(struct task_struct *task)
{
	return !task->pid || (from_group > HOST && task->flags & PF_KTHREAD);
}

static __always_inline int note_wakeup(struct task_struct *task)
{
	u64 now = bpf_ktime_get_ns();
	struct thread *thread;

	// One that runs goes on running.
	if (is_left_out(task) || task->on_cpu)
		return 0;
	thread = known(task);
	if (thread)
		begin(thread, task->wake_cpu, now);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int on_wakeup(u64 *context)
{
	return note_wakeup((void *)context[0]);
}

SEC("tp_btf/sched_wakeup_new")
int on_first_wakeup(u64 *context)
{
	return note_wakeup((void *)context[0]);
}

SEC("tp_btf/sched_switch")
int on_switch(u64 *context)
{
	struct task_struct *prev = (void *)context[1];
	struct task_struct *next = (void *)context[2];
	u32 cpu = bpf_get_smp_processor_id(), group = prev->pid ? HOST : IDLE;
	u32 key, zero = 0, bucket, cause = SAME;
	u64 now = bpf_ktime_get_ns(), since, wait, throttled = 0;
	struct thread *thread = 0;
	struct log *log = 0;
	struct waits *counted;

	if (!is_left_out(prev))
		thread = known(prev);
	if (thread) {
		group = thread->group;
		// Before it last ran, it may have been woken up while it did.
		thread->since = 0;
		if (prev->__state == TASK_RUNNING)
			begin(thread, cpu, now);
		if (with_causes) {
			thread->was_throttled = is_throttled(prev);
			thread->queue = (u64)prev->se.cfs_rq;
			thread->throttled_for = throttled_for(prev->se.cfs_rq);
		}
	}
	if (with_causes) {
		log = bpf_map_lookup_elem(&logs, &zero);
		if (!log)
			return 0;
		write_down(log, group, now);
	}
	if (prev->__state & TASK_DEAD) {
		u32 pid = prev->pid;

		bpf_map_delete_elem(&threads, &pid);
	}
	if (is_left_out(next))
		return 0;
	thread = known(next);
	if (!thread)
		return 0;
	since = thread->since;
	thread->since = 0;
	if (!since || !is_counted(thread->group))
		return 0;
	wait = now > since ? now - since : 0;

	bucket = bucket_of(wait);
	if (with_causes && log) {
		struct cfs_rq *queue = next->se.cfs_rq;

		if (thread->was_throttled)
			throttled = wait;
		else if (thread->queue == (u64)queue)
			throttled = throttled_for(queue) - thread->throttled_for;
		if (throttled > wait)
			throttled = wait;
		cause = cause_of(log, thread->group, since, thread->cpu != cpu, throttled);
	}
	if (cause >= CAUSES)
		return 0;
	key = ((thread->group - from_group) * CLASSES + class_of(next, thread->group)) * CAUSES +
	      cause;
	counted = bpf_map_lookup_elem(&waits, &key);
	if (counted)
		count(counted, wait, bucket);
	if (with_guests && thread->slot != NO_SLOT) {
		key = thread->slot;
		counted = bpf_map_lookup_elem(&guests, &key);
		if (counted)
			count_shared(counted, wait, bucket);
	}
	if (with_first && wait > threshold)
		claim(prev, next, wait, cause);
	return 0;
}

// imgbuild's own licence is both; the kernel asks for a word that it knows.
char LICENSE[] SEC("license") = "Dual MIT/GPL";
