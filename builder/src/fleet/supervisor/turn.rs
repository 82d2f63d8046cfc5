//! How much one turn of the loop reads from all consoles together; pure.
//!
//! The memory of a turn must not grow with the number of guests that flood their
//! consoles. A turn that has read its share leaves the other consoles to the next
//! turn, which begins with them.

use std::collections::BTreeSet;

use mio::Token;

use super::{ERRORS, INTERRUPT, Source, WAKER};
use crate::fleet::supervisor::news::untoken;
use crate::units::GuestIndex;
use crate::vmm::running::Amount;

/// Most that a turn takes, to which comes what the guest says that is heard last:
/// some megabytes, as lines and as what they mean.
const MOST: Amount = Amount {
    bytes: 4 << 20,
    lines: 16 << 10,
};

/// Who is to be heard in one turn, each once, in order.
#[derive(Debug)]
pub(crate) struct Turn {
    waiting: std::vec::IntoIter<Token>,
    taken: Amount,
    put_off: Vec<Token>,
}

impl Turn {
    /// Those of `tokens`, beginning at `first`, which the turn before put off.
    pub(super) fn new(mut tokens: Vec<Token>, first: Token) -> Self {
        tokens.sort_unstable();
        tokens.dedup();
        let before = tokens.partition_point(|token| *token < first);
        tokens.rotate_left(before);
        Self {
            waiting: tokens.into_iter(),
            taken: Amount::default(),
            put_off: Vec::new(),
        }
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        loop {
            let token = self.waiting.next()?;
            if !(self.taken.reaches(MOST) && says_much(token)) {
                return Some(token);
            }
            self.put_off.push(token);
        }
    }

    /// So much was taken from it.
    pub(super) fn took(&mut self, amount: Amount) {
        self.taken += amount;
    }

    /// Who was not heard, in order: first who waits the longest.
    pub(super) fn put_off(&self) -> &[Token] {
        &self.put_off
    }

    /// The guests that were not heard.
    pub(super) fn unheard(&self) -> BTreeSet<GuestIndex> {
        let guests = self.put_off.iter().filter_map(|token| untoken(*token));
        guests.map(|(guest, _)| guest).collect()
    }
}

/// Whether its news are what a console says: an end brings the last of it.
fn says_much(token: Token) -> bool {
    match token {
        INTERRUPT | ERRORS | WAKER => false,
        token => matches!(untoken(token), Some((_, Source::Console | Source::End))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::token;
    use super::*;

    /// The largest fleet of the reference experiment.
    const GUESTS: u32 = 6417;

    fn guest(index: u32) -> GuestIndex {
        GuestIndex::new(index).unwrap()
    }

    fn flood() -> Amount {
        Amount {
            bytes: 1024,
            lines: 512,
        }
    }

    #[test]
    fn a_turn_takes_so_much_from_all_and_each_has_its_turn() {
        let mut first = Token(0);
        let mut heard = vec![0; GUESTS as usize];
        let a_turn = MOST.lines / flood().lines;
        for _ in 0..heard.len().div_ceil(a_turn) {
            let tokens = (0..GUESTS).map(|which| token(guest(which), Source::Console));
            let mut turn = Turn::new(tokens.collect(), first);
            let mut taken = 0;
            while let Some(token) = turn.next() {
                let (guest, _) = untoken(token).unwrap();
                heard[guest.get() as usize] += 1;
                taken += flood().lines;
                turn.took(flood());
            }
            assert_eq!(taken, MOST.lines);
            assert_eq!(turn.unheard().len(), heard.len() - a_turn);
            first = turn.put_off()[0];
        }
        assert!(heard.iter().all(|times| (1..=2).contains(times)));
    }

    #[test]
    fn who_says_little_is_not_put_off() {
        let quiet = [token(guest(1), Source::Monitor), ERRORS, INTERRUPT, WAKER];
        let loud = [
            token(guest(1), Source::Console),
            token(guest(2), Source::End),
        ];
        let mut turn = Turn::new([&quiet[..], &loud].concat(), Token(0));
        turn.took(MOST);
        let heard: BTreeSet<_> = std::iter::from_fn(|| turn.next()).collect();
        assert_eq!(heard, BTreeSet::from(quiet));
        assert_eq!(turn.put_off(), loud);
        assert_eq!(turn.unheard(), BTreeSet::from([guest(1), guest(2)]));
    }
}
