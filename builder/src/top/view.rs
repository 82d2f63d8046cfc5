//! What the user chose to see, changed by keys: pure.

use std::collections::BTreeSet;
use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::Model;
use super::rows::{Column, place, rows};
use crate::control::bridge::Act;
use crate::units::GuestIndex;

/// Most characters of a filter.
const FILTER_MAX: usize = 64;

/// What is seen.
#[derive(Debug, Default)]
pub(super) struct View {
    pub column: Column,
    pub descending: bool,
    pub filter: String,
    /// The guest that keys act on.
    pub selected: Option<GuestIndex>,
    /// Its details are shown.
    pub details: bool,
    pub mode: Mode,
    /// The first row that is on the screen, and how many are; the screen says so.
    pub first: usize,
    pub height: usize,
    /// The guests that were on the screen last.
    pub on_screen: BTreeSet<GuestIndex>,
}

/// What keys mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    List,
    /// The filter is typed.
    Filter,
    Help,
    /// It is asked whether this is to be done.
    Confirm(Act, GuestIndex),
}

/// What a key asks for that the view cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Suspend,
    Act(Act, GuestIndex),
    LogIn(GuestIndex),
}

/// A way along the list.
#[derive(Debug, Clone, Copy)]
enum Step {
    Up(usize),
    Down(usize),
    First,
    Last,
}

impl View {
    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent, model: &Model) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                _ => Action::None,
            };
        }
        match self.mode {
            Mode::List => return self.list(key.code, model),
            Mode::Help => self.mode = Mode::List,
            Mode::Filter => self.type_filter(key.code),
            Mode::Confirm(act, guest) => {
                self.mode = Mode::List;
                if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                    return Action::Act(act, guest);
                }
            }
        }
        Action::None
    }

    fn list(&mut self, code: KeyCode, model: &Model) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if self.details => self.details = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter => self.details = !self.details && self.selected.is_some(),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Right | KeyCode::Char('>') => self.order(self.column.beside(true)),
            KeyCode::Left | KeyCode::Char('<') => self.order(self.column.beside(false)),
            KeyCode::Char('i') => self.descending = !self.descending,
            KeyCode::Up | KeyCode::Char('k') => self.step(Step::Up(1), model),
            KeyCode::Down | KeyCode::Char('j') => self.step(Step::Down(1), model),
            KeyCode::PageUp => self.step(Step::Up(self.height.max(1)), model),
            KeyCode::PageDown => self.step(Step::Down(self.height.max(1)), model),
            KeyCode::Home | KeyCode::Char('g') => self.step(Step::First, model),
            KeyCode::End | KeyCode::Char('G') => self.step(Step::Last, model),
            KeyCode::Char(act @ ('s' | 'r' | 'l')) => {
                let Some(guest) = self.selected else {
                    return Action::None;
                };
                match act {
                    's' => self.mode = Mode::Confirm(Act::Stop, guest),
                    'r' => self.mode = Mode::Confirm(Act::Restart, guest),
                    _ => return Action::LogIn(guest),
                }
            }
            _ => {}
        }
        Action::None
    }

    fn order(&mut self, column: Column) {
        if column != self.column {
            self.column = column;
            // What is most is looked for first.
            self.descending = column.is_number();
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::List,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::List;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(character);
            }
            _ => {}
        }
    }

    /// Selects another guest.
    fn step(&mut self, step: Step, model: &Model) {
        let rows = rows(
            model,
            &self.filter,
            self.column,
            self.descending,
            Instant::now(),
        );
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let now = self.selected.and_then(|guest| place(&rows, guest));
        let place = match (step, now) {
            (Step::First, _) => 0,
            (Step::Last, _) => last,
            // The first key selects the first that is on the screen.
            (Step::Up(_) | Step::Down(_), None) => self.first.min(last),
            (Step::Up(by), Some(now)) => now.saturating_sub(by),
            (Step::Down(by), Some(now)) => now.saturating_add(by).min(last),
        };
        self.selected = Some(rows[place].guest.id);
    }

    /// Has the selected row, of this place among so many, be one of the `height` rows on
    /// the screen.
    pub(super) fn scroll(&mut self, selected: Option<usize>, rows: usize, height: usize) {
        self.height = height;
        if let Some(selected) = selected {
            let least = (selected + 1).saturating_sub(height);
            self.first = self.first.clamp(least, selected.max(least));
        }
        self.first = self.first.min(rows.saturating_sub(height));
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::model;
    use super::*;
    use crate::guest::Phase;

    fn press(view: &mut View, model: &Model, keys: &[KeyCode]) -> Action {
        let keys = keys.iter().map(|code| KeyEvent::from(*code));
        keys.map(|key| view.key(key, model)).last().unwrap()
    }

    fn number(view: &View) -> Option<u32> {
        view.selected.map(GuestIndex::get)
    }

    #[test]
    fn keys_select_a_guest_and_stay_within_the_list() {
        let (model, _) = model(&[Phase::Ready; 30]);
        let mut view = View {
            height: 10,
            ..View::default()
        };
        for (key, selected) in [
            (KeyCode::Down, 0),
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::PageDown, 11),
            (KeyCode::Char('j'), 12),
            (KeyCode::End, 29),
            (KeyCode::Down, 29),
            (KeyCode::PageUp, 19),
            (KeyCode::Home, 0),
        ] {
            press(&mut view, &model, &[key]);
            assert_eq!(number(&view), Some(selected), "{key:?}");
        }
        let (nobody, _) = super::super::model::tests::model(&[]);
        press(&mut view, &nobody, &[KeyCode::Down]);
    }

    #[test]
    fn what_ends_guests_is_asked_first_and_a_login_is_not() {
        let (model, _) = model(&[Phase::Ready; 3]);
        let mut view = View::default();
        let key = KeyCode::Char;
        assert_eq!(press(&mut view, &model, &[key('s')]), Action::None);
        assert_eq!(view.mode, Mode::List, "none is selected");
        let guest = GuestIndex::new(0).unwrap();
        let keys = [KeyCode::Down, key('s'), key('n')];
        assert_eq!(press(&mut view, &model, &keys), Action::None);
        assert_eq!(view.mode, Mode::List);
        let done = press(&mut view, &model, &[key('s'), key('y')]);
        assert_eq!(done, Action::Act(Act::Stop, guest));
        let done = press(&mut view, &model, &[key('r'), key('y')]);
        assert_eq!(done, Action::Act(Act::Restart, guest));
        let done = press(&mut view, &model, &[key('l')]);
        assert_eq!(done, Action::LogIn(guest));
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        let (model, _) = model(&[Phase::Ready; 12]);
        let mut view = View::default();
        let key = KeyCode::Char;
        let keys = [key('/'), key('1'), key('q'), KeyCode::Backspace, key('1')];
        assert_eq!(press(&mut view, &model, &keys), Action::None);
        assert_eq!(view.filter, "11");
        press(&mut view, &model, &[KeyCode::Enter, KeyCode::Down]);
        assert_eq!(number(&view), Some(11));
        press(&mut view, &model, &[KeyCode::Enter]);
        assert!(view.details);
        press(&mut view, &model, &[KeyCode::Esc]);
        assert!(!view.details && !view.filter.is_empty());
        press(&mut view, &model, &[KeyCode::Esc]);
        assert_eq!(view.filter, "");
        let mut keys = vec![key('/')];
        keys.extend([key('x'); 200]);
        press(&mut view, &model, &keys);
        assert_eq!(view.filter.len(), FILTER_MAX);
    }

    #[test]
    fn it_is_left_and_suspended_from_everywhere() {
        let (model, _) = model(&[Phase::Ready]);
        for mode in [Mode::List, Mode::Filter, Mode::Help] {
            for (key, action) in [('c', Action::Quit), ('z', Action::Suspend)] {
                let mut view = View {
                    mode,
                    ..View::default()
                };
                let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
                assert_eq!(view.key(key, &model), action);
            }
        }
    }

    #[test]
    fn a_column_begins_with_what_is_looked_for() {
        let (model, _) = model(&[]);
        let mut view = View::default();
        press(&mut view, &model, &[KeyCode::Right, KeyCode::Right]);
        assert_eq!((view.column, view.descending), (Column::Age, true));
        press(&mut view, &model, &[KeyCode::Char('i')]);
        assert!(!view.descending);
        press(&mut view, &model, &[KeyCode::Left]);
        assert_eq!((view.column, view.descending), (Column::State, false));
    }

    #[test]
    fn the_selected_row_is_on_the_screen() {
        let mut view = View::default();
        for (selected, rows, height, first) in [
            (Some(0), 30, 10, 0),
            (Some(10), 30, 10, 1),
            (Some(29), 30, 10, 20),
            (Some(25), 30, 10, 20),
            (Some(3), 30, 10, 3),
            (None, 5, 10, 0),
            (Some(4), 5, 1, 4),
            (Some(4), 5, 0, 5),
        ] {
            view.scroll(selected, rows, height);
            assert_eq!(view.first, first, "{selected:?} of {rows} in {height}");
        }
    }
}
