//! Draws what is known of a fleet as the user chose to see it: pure, but for the clock.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::model::{Link, Model, RunQueue};
use super::rows::{Column, Row, place, rows, starts, why};
use super::view::{Mode, View};
use crate::control::bridge::Act;
use crate::control::types::{KsmState, Stage};
use crate::guest::Phase;
use crate::guest::counts::listed;
use crate::report::fleet::age;
use crate::report::runqlat::time;
use crate::text::printable;
use crate::units::{counted, grouped};

/// The smallest screen that has room for all of it.
const LEAST: (u16, u16) = (80, 24);
/// Lines about the whole fleet.
const HEAD: u16 = 7;
/// Lines about one guest, and of its console at least.
const DETAILS: u16 = 12;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

const HELP: &str = "\
Up Down PageUp PageDown Home End   select a guest
Enter                              its details and its console, and back
Left Right                         order by another column
i                                  the other way round
/                                  list guests by id, state, reason; Esc: all

s                                  stop the selected guest
r                                  restart it
l                                  log in to it; `exit` leads back

q, Ctrl-C                          leave; the fleet goes on

CPU% and WAIT%: shares of a CPU's time that the guest ran, and that its
threads waited for a CPU. MEMORY: what belongs to it alone. BURN/s: rounds a
second, asked of the guests on the screen every 10 s.

Any key leads back.";

/// Draws the whole screen; the view learns which guests are on it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, view: &mut View) {
    let now = Instant::now();
    let area = frame.area();
    if (area.width, area.height) < (1, 1) {
        return;
    }
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = LEAST;
        let small = format!(
            "top takes {width}x{height} characters; this terminal has {}x{}. q leaves.",
            area.width, area.height
        );
        frame.render_widget(Paragraph::new(small).wrap(Wrap { trim: true }), area);
        view.on_screen.clear();
        return;
    }
    let details = if view.details {
        (area.height / 2).max(DETAILS)
    } else {
        0
    };
    let [head, list, below, foot] = Layout::vertical([
        Constraint::Length(HEAD),
        Constraint::Min(2),
        Constraint::Length(details),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(header(model, now)), head);
    let rows = rows(model, &view.filter, view.column, view.descending, now);
    draw_list(frame, &rows, view, list);
    if view.details {
        draw_details(frame, model, &rows, view, below);
    }
    frame.render_widget(Paragraph::new(footer(model, view, now)), foot);
    if view.mode == Mode::Help {
        draw_help(frame, area);
    }
}

/// The lines about the whole fleet.
fn header(model: &Model, now: Instant) -> Vec<Line<'static>> {
    let picture = &model.picture;
    let stage = match (&model.link, picture.stage) {
        (Link::Connecting, _) => "?",
        (Link::Ended, _) => "ended",
        (_, Some(Stage::Starting)) => "starting",
        (_, Some(Stage::Up)) => "up",
        (_, Some(Stage::Settled)) => "settled",
        (_, Some(Stage::Stopping)) => "stopping",
        (_, Some(Stage::Orphaned)) => "orphaned",
        (_, Some(Stage::Lost)) => "lost",
        (_, Some(Stage::Elsewhere) | None) => "elsewhere",
    };
    let supervisor = picture.fleet().and_then(|fleet| fleet.supervisor);
    let supervisor = match (&model.link, supervisor) {
        (Link::Up, Some(supervisor)) => format!(", under supervisor {}", supervisor.pid),
        (Link::Orphaned, _) => ", without a supervisor".to_owned(),
        _ => String::new(),
    };
    let guests = counted(picture.guests().count() as u64, "guest");
    let host = &model.host;
    let percent = |share: Option<f64>| share.map_or_else(unknown, |share| format!("{share:.0} %"));
    let bytes = |bytes: Option<u64>| bytes.map_or_else(unknown, size);
    let ksm = match host.ksm {
        None => "",
        Some(KsmState::Stopped) => " (KSM does not run)",
        Some(KsmState::Merging) => " (KSM merges)",
        Some(KsmState::Settled) => " (KSM settled)",
    };
    let again = picture.guests().map(|guest| u64::from(guest.restarts));
    let again = grouped(again.sum());
    let waits = match &model.run_queue {
        RunQueue::Unknown => "run queue -".to_owned(),
        RunQueue::Waits(None) => "run queue: no waits".to_owned(),
        RunQueue::Waits(Some((half, most))) => {
            format!("run queue p50 {}, p99 {}", time(*half), time(*most))
        }
        RunQueue::Means(_) => "run queue: no BPF".to_owned(),
    };
    vec![
        Line::from(vec![
            Span::styled(model.name.clone(), BOLD),
            Span::raw(format!(" is {stage}{supervisor}")),
        ]),
        Line::raw(format!("{guests}: {}", listed(&picture.counts()))),
        Line::raw(memory(model, now)),
        Line::raw(format!(
            "merged {}, not merged {}{ksm}; available {}",
            bytes(host.merged),
            bytes(host.unmerged),
            bytes(host.available)
        )),
        Line::raw(format!(
            "CPU: host {} of {}, guests {}; PSI cpu {}, memory {}",
            percent(host.busy.map(|busy| busy * 100.0)),
            counted(host.cpus as u64, "CPU"),
            percent(model.guests_cpu().map(|cpus| cpus * 100.0)),
            percent(host.cpu_pressure),
            percent(host.memory_pressure)
        )),
        Line::raw(format!(
            "starts {:.1}/s, restarts {again}; {} burning; vCPUs' {waits}",
            model.start_rate(now),
            grouped(model.burning.into())
        )),
        warning(model),
    ]
}

/// What the fleet costs its host.
fn memory(model: &Model, now: Instant) -> String {
    let Some((memory, at)) = &model.memory else {
        return "memory: being read".to_owned();
    };
    let Some(each) = memory.bytes_a_guest.filter(|bytes| *bytes > 0) else {
        return "memory: no guest has a process".to_owned();
    };
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let dense = (1_u64 << 30) as f64 / each as f64;
    format!(
        "memory {}, {} a guest: {dense:.1} guests a GiB ({} ago)",
        size(memory.bytes),
        size(each),
        age(now.saturating_duration_since(*at).as_secs_f64())
    )
}

/// What the user should know of before all else.
fn warning(model: &Model) -> Line<'static> {
    let alarm = BOLD.fg(Color::Red);
    let text = match &model.link {
        Link::Connecting => return Line::raw("asking the supervisor"),
        Link::Orphaned => format!(
            "its supervisor died; `imgbuild launch --resume {}` starts another one",
            model.name
        ),
        Link::Deaf(why) => why.clone(),
        Link::Ended => "the fleet has ended; q leaves".to_owned(),
        Link::Up => match &model.picture.held_back {
            Some(why) => format!("held back: {}", printable(why)),
            None => match &model.run_queue {
                RunQueue::Means(why) => {
                    return Line::styled(format!("run queue: {}", printable(why)), DIM);
                }
                _ => return Line::default(),
            },
        },
    };
    Line::styled(text, alarm)
}

fn draw_list(frame: &mut Frame<'_>, rows: &[Row<'_>], view: &mut View, area: Rect) {
    let height = usize::from(area.height.saturating_sub(1));
    let selected = view.selected.and_then(|guest| place(rows, guest));
    view.scroll(selected, rows.len(), height);
    let seen = rows.iter().skip(view.first).take(height);
    let mut lines = vec![names(view, area.width)];
    lines.extend(seen.clone().map(|row| {
        let line = Line::from(cells(row));
        if view.selected == Some(row.guest.id) {
            // To the end of the line.
            let length = line.width();
            let rest = usize::from(area.width).saturating_sub(length);
            let mut line = line;
            line.push_span(" ".repeat(rest));
            line.style(REVERSED)
        } else {
            line
        }
    }));
    view.on_screen = seen.map(|row| row.guest.id).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// The names of the columns.
fn names(view: &View, width: u16) -> Line<'static> {
    let mut spans = Vec::new();
    let mut length = 0;
    for column in Column::ALL {
        let (name, characters) = column.head();
        let mark = match (column == view.column, view.descending) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        let name = format!("{name}{mark}");
        let name = if column.is_number() {
            format!("{name:>characters$} ")
        } else {
            format!("{name:characters$} ")
        };
        length += name.chars().count();
        let style = if mark.is_empty() {
            REVERSED
        } else {
            REVERSED.add_modifier(Modifier::BOLD)
        };
        spans.push(Span::styled(name, style));
    }
    let rest = usize::from(width).saturating_sub(length);
    spans.push(Span::styled(" ".repeat(rest), REVERSED));
    Line::from(spans)
}

fn cells(row: &Row<'_>) -> Vec<Span<'static>> {
    let number = |number: Option<f64>| number.map_or_else(unknown, |number| format!("{number:.0}"));
    let percent = |share: Option<f64>| number(share.map(|share| share * 100.0));
    let texts = Column::ALL.map(|column| match column {
        Column::Guest => row.guest.id.to_string(),
        Column::State => row.guest.state.name().to_owned(),
        Column::Age => age(row.age),
        Column::Starts => starts(row.guest).to_string(),
        Column::Burn => number(row.uses.burn),
        Column::Cpu => percent(row.uses.cpu),
        Column::Waits => percent(row.uses.waits),
        Column::Memory => row.uses.own.map_or_else(unknown, size),
        Column::Reason => why(row.guest).map(printable).unwrap_or_default(),
    });
    let spans = Column::ALL.into_iter().zip(texts).map(|(column, text)| {
        let (_, characters) = column.head();
        let text = if column.is_number() {
            format!("{text:>characters$} ")
        } else {
            format!("{text:characters$} ")
        };
        let style = match column {
            Column::State => Style::new().fg(colour(row.guest.state)),
            _ => Style::new(),
        };
        Span::styled(text, style)
    });
    spans.collect()
}

/// What a state means for the user.
fn colour(state: Phase) -> Color {
    match state {
        Phase::Ready => Color::Green,
        Phase::Failed | Phase::Unresponsive | Phase::Unsupervised => Color::Red,
        Phase::Exited | Phase::Planned => Color::Reset,
        _ => Color::Yellow,
    }
}

/// A guest, and the end of its console.
fn draw_details(frame: &mut Frame<'_>, model: &Model, rows: &[Row<'_>], view: &View, area: Rect) {
    let Some(row) = view
        .selected
        .and_then(|guest| rows.get(place(rows, guest)?))
    else {
        let block = Block::bordered().title(" no guest of the list is selected ");
        frame.render_widget(block, area);
        return;
    };
    let guest = row.guest;
    let block = Block::bordered().title(format!(" {} ", guest.id));
    let inner = block.inner(area);
    let or_none = |text: Option<String>| text.unwrap_or_else(unknown);
    let burn = guest.burn.map(|burn| {
        let threads = counted(burn.threads.into(), "thread");
        format!(
            "duty {} % on {threads}, {} rounds",
            burn.duty.percent(),
            grouped(burn.rounds)
        )
    });
    let mut lines = vec![
        Line::raw(format!(
            "{} for {}; process {}; ssh {}; ready {} after its start",
            guest.state.name(),
            age(row.age),
            or_none(guest.pid.map(|pid| pid.to_string())),
            or_none(guest.ssh.as_deref().map(printable)),
            or_none(guest.ready_after.map(time)),
        )),
        Line::raw(format!(
            "{}, late {}; {}",
            counted(starts(guest).into(), "start"),
            counted(guest.unresponsive.into(), "time"),
            or_none(burn),
        )),
        Line::raw(guest.reason.as_deref().map(printable).unwrap_or_default()),
    ];
    let height = usize::from(inner.height).saturating_sub(lines.len());
    let console = model.console.as_ref().filter(|(of, _)| *of == guest.id);
    let console = console.map_or(&[][..], |(_, lines)| lines);
    let last = console.iter().skip(console.len().saturating_sub(height));
    lines.extend(last.map(|line| Line::styled(line.clone(), DIM)));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX) + 2;
    let width = LEAST.0;
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width,
        height: height.min(area.height),
    };
    frame.render_widget(Clear, area);
    frame.render_widget(
        Paragraph::new(HELP).block(Block::bordered().title(" keys ")),
        area,
    );
}

/// What keys do now.
fn footer(model: &Model, view: &View, now: Instant) -> Line<'static> {
    match view.mode {
        Mode::Confirm(act, guest) => {
            let act = match act {
                Act::Stop => "Stop",
                Act::Restart => "Restart",
                Act::Kill => "Kill",
            };
            Line::styled(format!("{act} {guest}? y: yes, any other key: no"), BOLD)
        }
        Mode::Filter => Line::styled(
            format!("list guests with: {}_", printable(&view.filter)),
            BOLD,
        ),
        Mode::List | Mode::Help => {
            if let Some(note) = model.noted(now) {
                return Line::styled(note.to_owned(), BOLD);
            }
            let filter = match &*view.filter {
                "" => String::new(),
                filter => format!("with: {} (Esc: all)   ", printable(filter)),
            };
            Line::raw(format!(
                "{filter}? help   Enter details   / filter   s stop   r restart   l log in   q quit"
            ))
        }
    }
}

fn unknown() -> String {
    "-".to_owned()
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let in_units = |shift: u32| bytes as f64 / (1_u64 << shift) as f64;
    match bytes {
        0..1_048_576 => format!("{:.0} KiB", in_units(10)),
        1_048_576..1_073_741_824 => format!("{:.2} MiB", in_units(20)),
        _ => format!("{:.2} GiB", in_units(30)),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::tests::model;
    use super::*;
    use crate::control::picture::tests::guest;
    use crate::control::types::Event;
    use crate::units::GuestIndex;

    fn drawn(model: &Model, view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_fleet_is_on_the_screen_at_every_size() {
        let (model, _) = model(&[Phase::Ready; 300]);
        for (width, height) in [(80, 24), (200, 60), (81, 25)] {
            let mut view = View::default();
            let text = drawn(&model, &mut view, width, height);
            assert!(text.contains("300 guests: 300 ready"), "{text}");
            assert!(text.contains("g00000 ready"), "{text}");
            assert_eq!(view.on_screen.len(), usize::from(height) - 9);
        }
        for (width, height) in [(1, 1), (79, 24), (80, 23), (10, 3)] {
            drawn(&model, &mut View::default(), width, height);
        }
    }

    #[test]
    fn a_guest_is_selected_and_its_details_obey_nobody() {
        let (mut model, now) = model(&[Phase::Ready; 40]);
        let hostile = "\u{1b}[2J\u{202e}owned";
        let mut restarting = guest(39, Phase::Restarting);
        restarting.reason = Some(hostile.to_owned());
        model.hear(Event::Guest(restarting), now);
        let id = GuestIndex::new(39).unwrap();
        model.console = Some((id, vec![printable(hostile)]));
        let mut view = View {
            selected: Some(id),
            details: true,
            ..View::default()
        };
        let text = drawn(&model, &mut view, 80, 24);
        assert!(text.contains("g00039 restarting"), "{text}");
        assert_eq!(
            text.matches("\\u{1b}[2J\\u{202e}owned").count(),
            2,
            "{text}"
        );
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{text}"
        );
        // One that the filter leaves out.
        view.filter = "g00000".to_owned();
        let text = drawn(&model, &mut view, 80, 24);
        assert!(text.contains("no guest of the list is selected"), "{text}");
    }

    #[test]
    fn what_keys_do_is_on_the_last_line() {
        let (mut model, _) = model(&[Phase::Ready]);
        let mut view = View::default();
        for (mode, words) in [
            (Mode::List, "q quit"),
            (Mode::Filter, "list guests with: _"),
            (
                Mode::Confirm(Act::Stop, GuestIndex::new(0).unwrap()),
                "Stop g00000? y",
            ),
            (Mode::Help, "log in to it"),
        ] {
            view.mode = mode;
            let text = drawn(&model, &mut view, 80, 24);
            assert!(text.contains(words), "{text}");
        }
        view.mode = Mode::List;
        model.note("stop g00000: done".to_owned());
        assert!(drawn(&model, &mut view, 80, 24).contains("stop g00000: done"));
    }

    #[test]
    fn how_it_stands_with_the_supervisor_is_seen() {
        let (mut model, _) = model(&[Phase::Ready]);
        for (link, words) in [
            (Link::Orphaned, "launch --resume f"),
            (Link::Deaf("it is deaf".to_owned()), "it is deaf"),
            (Link::Ended, "the fleet has ended"),
        ] {
            model.link = link;
            let text = drawn(&model, &mut View::default(), 80, 24);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn bytes_are_in_the_unit_that_people_read() {
        for (bytes, text) in [
            (0, "0 KiB"),
            (831_488, "812 KiB"),
            (4_299_161, "4.10 MiB"),
            (3_221_225_472, "3.00 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
