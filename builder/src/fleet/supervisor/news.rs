//! The poll set: its events, and the token of each source.

use std::io;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::units::GuestIndex;
use crate::vmm::running::Source;

/// What a guest's poll tokens stand for, in order.
pub(super) const SOURCES: [Source; 3] = [Source::Console, Source::End, Source::Monitor];

/// Waits for news, and takes all that are there, so that what was said in time
/// is heard before anybody is judged late; about `most`, where more come all the
/// time.
pub(super) fn news(
    poll: &mut Poll,
    events: &mut Events,
    mut timeout: Option<Duration>,
    most: usize,
) -> io::Result<Vec<Token>> {
    let mut tokens = Vec::new();
    loop {
        if let Err(error) = poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let before = tokens.len();
        tokens.extend(events.iter().map(mio::event::Event::token));
        if tokens.len() - before < events.capacity() || tokens.len() >= most {
            return Ok(tokens);
        }
        timeout = Some(Duration::ZERO);
    }
}

/// The poll token of one of a guest's sources.
pub(super) fn token(guest: GuestIndex, source: Source) -> Token {
    Token(guest.get() as usize * SOURCES.len() + source as usize)
}

/// What a poll token stands for; `None` for one that is not a guest's.
pub(super) fn untoken(token: Token) -> Option<(GuestIndex, Source)> {
    let number = u32::try_from(token.0 / SOURCES.len()).ok()?;
    let guest = GuestIndex::new(number).ok()?;
    Some((guest, SOURCES[token.0 % SOURCES.len()]))
}

#[cfg(test)]
mod tests {
    use mio::Interest;
    use mio::net::UnixDatagram;

    use super::*;

    #[test]
    fn news_of_many_come_at_once() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let mut pairs: Vec<_> = (0..10).map(|_| UnixDatagram::pair().unwrap()).collect();
        for (which, (one, other)) in pairs.iter_mut().enumerate() {
            let token = Token(which);
            poll.registry()
                .register(other, token, Interest::READABLE)
                .unwrap();
            one.send(b"x").unwrap();
        }
        let mut heard = |most| news(&mut poll, &mut events, Some(Duration::ZERO), most).unwrap();
        let first = heard(5);
        assert_eq!(first.len(), 8);
        let rest = heard(100);
        let mut all: Vec<_> = first.iter().chain(&rest).map(|token| token.0).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!(heard(100), []);
    }
}
