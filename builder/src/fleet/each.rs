//! Does something with each of many guests, some at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::units::GuestIndex;

/// Does `work` with each guest, with at most `parallel` at a time, and hands over
/// what came of each, in the order of `guests` and as early as that allows. The
/// first error ends it: no further guest is begun with.
pub(crate) fn on_each<T: Send, E: Send>(
    guests: &[GuestIndex],
    parallel: usize,
    work: impl Fn(GuestIndex) -> Result<T, E> + Sync,
    mut on_guest: impl FnMut(GuestIndex, T),
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..parallel.min(guests.len()) {
            let sender = sender.clone();
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                while let Some(guest) = guests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = work(*guest);
                    let failed = done.is_err();
                    if sender.send((*guest, done)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut in_order = guests.iter();
        let mut expected = in_order.next();
        for (guest, done) in receiver {
            let done = done.inspect_err(|_| next.store(guests.len(), Ordering::Relaxed))?;
            waiting.insert(guest, done);
            while let Some(guest) = expected
                && let Some(done) = waiting.remove(guest)
            {
                on_guest(*guest, done);
                expected = in_order.next();
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::GuestRange;

    #[test]
    fn guests_come_in_order_and_an_error_ends_it() {
        let guests: Vec<_> = GuestRange::first(20).unwrap().iter().collect();
        let mut seen = Vec::new();
        let done: Result<(), ()> = on_each(
            &guests,
            7,
            |guest| Ok(guest.get() * 2),
            |guest, twice| seen.push((guest, twice)),
        );
        assert_eq!(done, Ok(()));
        let expected: Vec<_> = guests
            .iter()
            .map(|guest| (*guest, guest.get() * 2))
            .collect();
        assert_eq!(seen, expected);

        let begun = AtomicUsize::new(0);
        let failed = on_each(
            &guests,
            1,
            |guest| {
                begun.fetch_add(1, Ordering::Relaxed);
                if guest.get() == 2 {
                    Err("full")
                } else {
                    Ok(())
                }
            },
            |_, ()| {},
        );
        assert_eq!((failed, begun.into_inner()), (Err("full"), 3));
    }
}
