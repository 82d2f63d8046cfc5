/*
 * What no option of the configuration says. Included ahead of the kernel's linker script and of every C file (make
 * CPPFLAGS_vmlinux.lds=..., KCFLAGS=..., CFLAGS_x.o=...); no source file is changed.
 */
#ifdef LINKER_SCRIPT
/*
 * Fewer pages touched: the sections of the kernel image follow each other at page boundaries.
 *
 * arch/x86/kernel/vmlinux.lds.S pads text, entry text, read-only data and .bss to 2 MiB each, so that they can be
 * mapped by large pages. The padding is in the ELF's segments, QEMU writes it to guest memory, and the kernel clears
 * what is in .bss and poisons what it frees: about 6 MiB touched for nothing. The two alignments that the script uses
 * are redefined here. The price is 4 KiB mappings of the kernel's text.
 */
#include <asm/asm-offsets.h>
#include <asm/thread_info.h>
#include <asm/page_types.h>
#include <asm/pgtable_64_types.h>
#undef HPAGE_SIZE
#define HPAGE_SIZE 4096
#undef PMD_SIZE
#define PMD_SIZE 4096
#else
/*
 * Fewer pages touched: a memory section is 32 MiB instead of 128. The kernel writes the page structures of every
 * section that holds RAM, and of all of the section: 16 KiB a MiB.
 */
#include <asm/sparsemem.h>
#undef SECTION_SIZE_BITS
#define SECTION_SIZE_BITS 25
#endif

#ifdef DEFERRABLE
/*
 * Fewer wakeups: timers that a sleeping guest can do without do not wake it, and run when it is awake anyway.
 *
 * drivers/char/random.c: new random numbers from the pool once a minute, more often in the first minutes.
 * fs/fs-writeback.c: what lazytime put off, every 12 hours.
 * net/sched/sch_generic.c: whether the NIC holds a packet back, every 5 seconds.
 * net/ipv4/devinet.c: whether an address has had its time, every 2 minutes.
 */
#include <linux/workqueue.h>
#undef DECLARE_DELAYED_WORK
#define DECLARE_DELAYED_WORK DECLARE_DEFERRABLE_WORK
#undef timer_setup
#define timer_setup(timer, callback, flags) __init_timer((timer), (callback), (flags) | TIMER_DEFERRABLE)
#endif

#ifdef SHORT_QUEUES
/*
 * Fewer pages touched: virtqueues of 64 descriptors. drivers/virtio/virtio_mmio.c takes what the device offers, which
 * is 1,024 with QEMU whatever `queue-size` says: rings of 60 KiB each, 1,024 requests of a disk made ahead, and as many
 * buffers of a NIC, every one of which is touched in its turn.
 */
#include <linux/virtio_ring.h>
#define vring_create_virtqueue(index, num, ...) \
	vring_create_virtqueue((index), min_t(unsigned int, (num), 64), __VA_ARGS__)
#endif

#ifdef KNOWN_LAPIC
/*
 * A timer that surely works: `lapic_khz=` on the command line tells the frequency of the local APIC, as some
 * hypervisors do by an interface of theirs (arch/x86/kernel/cpu/vmware.c). arch/x86/kernel/apic/apic.c would measure it
 * against the PIT, and where a busy host runs the guest late, take the two for inconsistent and use the PIT instead,
 * which wakes the guest 37 times a second for as long as it lives.
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <asm/apic.h>
static int __init set_lapic_khz(char *text)
{
	unsigned int khz;

	if (!text || kstrtouint(text, 10, &khz))
		return -EINVAL;
	lapic_timer_period = khz * (1000 / HZ);
	return 0;
}
early_param("lapic_khz", set_lapic_khz);
#endif
