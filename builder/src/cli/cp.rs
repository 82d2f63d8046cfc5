//! `imgbuild cp`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use self::place::{Place, Whose};
use super::launch::fleet_name;
use super::output::{Verbatim, is_reader_gone, print_json};
use super::ssh::{self, attend};
use super::{Context, Exit, Failure};
use crate::fleet::copy::{Copied, CopyError, GuestPath, Landing, Terms};
use crate::fleet::each::on_each;
use crate::fleet::ssh::{End, Reachable, Tally};
use crate::progress;
use crate::units::GuestIndex;

mod place;
mod report;

/// What `-` goes by in messages.
const STDIN: &str = "stdin";

/// Arguments of `cp`.
#[derive(Debug, Args)]
#[command(
    after_help = "Either SOURCE or DESTINATION is in guests: GUEST:PATH, with a guest such \
    as g00007 or 7. Several guests are 100-199:PATH, 'g000*:PATH', or :PATH with --all: a \
    file goes to each of them, or a folder here gets one file a guest, named by its id.\n\n\
    Examples:\n  \
    imgbuild cp data.bin g00007:/disk/\n  \
    imgbuild cp g00007:/proc/meminfo -\n  \
    imgbuild cp --all :/proc/meminfo meminfo/"
)]
pub(super) struct Cp {
    /// The file to copy; - for stdin
    #[arg(value_name = "SOURCE")]
    source: OsString,

    /// Where to copy it: a file, a folder, or - for stdout
    #[arg(value_name = "DESTINATION")]
    destination: OsString,

    /// The fleet [default: the only one that is running]
    #[arg(long, value_name = "FLEET", env = "IMGBUILD_FLEET", value_parser = fleet_name)]
    fleet: Option<String>,

    /// Copy to or from every guest
    #[arg(long)]
    all: bool,

    /// Guests at a time, of several [default: 4 for each CPU]
    #[arg(long, value_name = "N", env = "IMGBUILD_PARALLEL",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,

    /// How long each guest's copy may take [default: no limit for one guest; else
    /// 60s, and more where many guests share a CPU]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    within: Option<Duration>,

    /// Print one JSON object a guest
    #[arg(long)]
    json: bool,
}

/// A copy, which way it goes.
enum Way {
    Out { from: GuestPath, to: Target },
    In { from: Source, to: GuestPath },
}

/// What a guest's file becomes.
enum Target {
    Stdout,
    File(PathBuf),
    /// A folder, for one file a guest.
    Folder(PathBuf),
}

/// What a guest's file is made from.
enum Source {
    Stdin,
    File(PathBuf),
}

impl Cp {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (whose, way) = self.parts().map_err(Failure::usage)?;
        let fleet = Reachable::find(self.fleet.as_deref(), &context.directories)?;
        let guests = match &whose {
            Whose::One(guest) => vec![fleet.known(*guest)?],
            Whose::These(selector) => fleet.select(std::slice::from_ref(selector))?,
            Whose::All => fleet.select(&[])?,
        };
        let is_one = matches!(whose, Whose::One(_));
        if let Way::Out {
            to: Target::Folder(folder),
            ..
        } = &way
        {
            fs::create_dir_all(folder).map_err(|source| CopyError::Write {
                path: folder.clone(),
                source,
            })?;
        }
        let limit = (!is_one).then(|| ssh::within(fleet.count()));
        let terms = Terms {
            fleet: &fleet,
            within: self.within.or(limit),
            interrupt: &context.interrupt,
        };
        let client = context.client(fleet.name(), fleet.paths());
        let bar = if is_one {
            way.bar()
        } else {
            progress::bar(guests.len() as u64, "guests done")
        };
        let copy = |guest| {
            let _attended = attend(&client, guest);
            let moved = is_one.then_some(&bar);
            way.copy(&terms, guest, moved)
        };
        let mut tally = Tally::default();
        let mut printed = Ok(());
        let done = on_each(
            &guests,
            ssh::parallel(self.parallel),
            copy,
            |guest, copied| {
                tally.count(copied.end);
                let shown = self.show(guest, &copied, &way);
                if printed.is_ok() {
                    printed = shown;
                }
                if !is_one {
                    bar.inc(1);
                }
            },
        );
        bar.finish_and_clear();
        done?;
        printed?;
        if self.json {
            print_json(&ssh::summary(fleet.name(), &tally))?;
        }
        if !is_one {
            tracing::info!("{}", ssh::sentence(&tally));
        }
        Ok(ssh::exit(&tally))
    }

    /// Whose guests it is about, and which way; the error is what is wrong with it.
    fn parts(&self) -> Result<(Whose, Way), String> {
        let source = Place::parse(&self.source)?;
        let destination = Place::parse(&self.destination)?;
        let (whose, way) = match (source, destination) {
            (Place::Guests(whose, from), to) => {
                let to = target(&whose, &from, to)?;
                (whose, Way::Out { from, to })
            }
            (from, Place::Guests(whose, to)) => {
                let (from, name) = match from {
                    Place::Here(path) => {
                        let name = path.file_name().map(ToOwned::to_owned);
                        (Source::File(path), name)
                    }
                    _ => (Source::Stdin, None),
                };
                if matches!(whose, Whose::These(_) | Whose::All)
                    && let Some(stream) = from.stream()
                {
                    return Err(format!(
                        "{} can be read once, for one guest; give a file for several",
                        stream.display()
                    ));
                }
                let to = to.or_in_folder(name.as_deref());
                let to = to.ok_or("give the name of the guest's file behind the folder")?;
                (whose, Way::In { from, to })
            }
            _ => {
                return Err("neither SOURCE nor DESTINATION is in a guest, such as \
                            g00007:/disk/f, or with --all :/disk/f"
                    .to_owned());
            }
        };
        match (&whose, self.all) {
            (Whose::All, false) => {
                return Err("name guests before the colon, or give --all".to_owned());
            }
            (Whose::One(_) | Whose::These(_), true) => {
                return Err("--all goes with :PATH, without a guest before the colon".to_owned());
            }
            _ => {}
        }
        if self.json
            && matches!(
                way,
                Way::Out {
                    to: Target::Stdout,
                    ..
                }
            )
        {
            return Err("--json and - both want stdout; give a file".to_owned());
        }
        Ok((whose, way))
    }

    fn show(&self, guest: GuestIndex, copied: &Copied, way: &Way) -> Result<(), Failure> {
        let why = report::why(guest, copied, way);
        if self.json {
            print_json(&report::json(guest, copied, way, why.as_deref()))?;
        } else if let Some(why) = &why {
            tracing::error!("{why}");
        }
        Ok(())
    }
}

/// What the files of these guests become.
fn target(whose: &Whose, from: &GuestPath, to: Place) -> Result<Target, String> {
    match (whose, to) {
        (_, Place::Guests(..)) => {
            Err("SOURCE and DESTINATION are both in guests; copy to a file here first".to_owned())
        }
        (Whose::One(_), Place::Stream) => Ok(Target::Stdout),
        (Whose::One(_), Place::Here(path)) if path.is_dir() => match from.name() {
            Some(name) => Ok(Target::File(path.join(name))),
            None => Err("SOURCE has no name of its own; name the file to write".to_owned()),
        },
        (Whose::One(_), Place::Here(path)) => Ok(Target::File(path)),
        (Whose::These(_) | Whose::All, Place::Stream) => {
            Err("files of several guests go into a folder; \
                 `imgbuild ssh --all -- cat PATH` prints them"
                .to_owned())
        }
        (Whose::These(_) | Whose::All, Place::Here(path)) => Ok(Target::Folder(path)),
    }
}

impl Way {
    /// Shows how much of one guest's copy is done.
    fn bar(&self) -> ProgressBar {
        let total = match self {
            Self::In {
                from: Source::File(path),
                ..
            } => fs::metadata(path).ok().map(|metadata| metadata.len()),
            _ => None,
        };
        progress::bytes(total, "copied")
    }

    fn copy(
        &self,
        terms: &Terms<'_>,
        guest: GuestIndex,
        bar: Option<&ProgressBar>,
    ) -> Result<Copied, CopyError> {
        let bar = bar.cloned();
        let moved = move |bytes| {
            if let Some(bar) = &bar {
                bar.inc(bytes);
            }
        };
        match self {
            Self::In { from, to } => {
                let (source, name) = from.open()?;
                terms.write(guest, to, source, name, moved)
            }
            Self::Out { from, to } => {
                let Some(path) = to.path(guest) else {
                    return print(terms, guest, from, moved);
                };
                let mut landing = Landing::new(&path)?;
                let copied = terms.read(guest, from, |bytes| {
                    moved(bytes.len() as u64);
                    landing.write(bytes)
                })?;
                if copied.end == End::Exited(0) {
                    landing.settle()?;
                }
                Ok(copied)
            }
        }
    }
}

/// Prints a guest's file. A reader that goes away has what it wanted.
fn print(
    terms: &Terms<'_>,
    guest: GuestIndex,
    from: &GuestPath,
    moved: impl Fn(u64),
) -> Result<Copied, CopyError> {
    let failed = |source| CopyError::Write {
        path: "stdout".into(),
        source,
    };
    let mut output = Verbatim::new();
    let copied = terms.read(guest, from, |bytes| {
        moved(bytes.len() as u64);
        progress::suspend(|| output.write(bytes)).map_err(failed)
    });
    match copied {
        Err(CopyError::Write { source, .. }) if is_reader_gone(&source) => Ok(Copied {
            end: End::Exited(0),
            bytes: 0,
            words: String::new(),
        }),
        copied => {
            output.finish().map_err(failed)?;
            copied
        }
    }
}

impl Target {
    /// The file for a guest.
    fn path(&self, guest: GuestIndex) -> Option<PathBuf> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path.clone()),
            Self::Folder(folder) => Some(folder.join(guest.to_string())),
        }
    }
}

impl Source {
    /// What it goes by if who opens it twice reads one part each.
    fn stream(&self) -> Option<&Path> {
        match self {
            Self::Stdin => Some(Path::new(STDIN)),
            Self::File(path) => {
                // What is not there, and a folder, are refused when they are opened.
                let metadata = fs::metadata(path).ok()?;
                let is_stream = !metadata.is_file() && !metadata.is_dir();
                is_stream.then_some(path)
            }
        }
    }

    /// The file, and what it goes by.
    fn open(&self) -> Result<(File, &Path), CopyError> {
        let (name, opened) = match self {
            Self::Stdin => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                (Path::new(STDIN), stdin.map(File::from))
            }
            Self::File(path) => (&**path, open(path)),
        };
        let file = opened.map_err(|source| CopyError::Read {
            path: name.to_path_buf(),
            source,
        })?;
        Ok((file, name))
    }
}

/// Opens a file or a pipe.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("it is a folder, and cp copies one file"));
    }
    Ok(file)
}
