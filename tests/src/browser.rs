//! Headless Chromium: opens a page as users see it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::{TestEnv, run};

/// What a user prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Dark letters on light ground.
    Light,
    /// Light letters on dark ground.
    Dark,
}

/// A page at a width, as Chromium laid it out.
#[derive(Debug, Deserialize)]
pub struct Layout {
    /// The page, by the name that the test gave it.
    pub page: String,
    /// The width that was asked for.
    pub wanted: u32,
    /// The width that the page saw.
    pub width: u32,
    /// The width that it needs: more than it has where something overflows.
    pub needed: u32,
    /// How high it is.
    pub height: u32,
    /// Whether it was laid out for a user who prefers dark ground.
    pub is_dark: bool,
    /// The colour of its ground.
    pub ground: String,
    /// Elements that load or run something, and what was loaded.
    pub loading: Vec<String>,
    /// A script of the page that ran all the same.
    pub ran: bool,
    /// Texts of drawings that meet each other, or leave their drawing.
    pub faults: Vec<String>,
}

/// Lays pages out in frames, beside a script that measures them: frames, because a
/// window of Chromium is 500 pixels wide at least.
const MEASURE: &str = r"
addEventListener('load', () => {
  const report = [...document.querySelectorAll('iframe')].map(frame => {
    const inner = frame.contentDocument, view = frame.contentWindow;
    const faults = [];
    for (const drawing of inner.querySelectorAll('.drawing svg')) {
      const box = drawing.getBoundingClientRect();
      const texts = [...drawing.querySelectorAll('text')].map(text =>
        ({ words: text.textContent.trim(), at: text.getBoundingClientRect() }));
      for (const { words, at } of texts)
        if (at.left < box.left - 1 || at.right > box.right + 1
            || at.top < box.top - 1 || at.bottom > box.bottom + 1)
          faults.push(`${words} leaves its drawing`);
      // Lines of text keep a distance of their own, so their boxes may touch.
      texts.forEach((one, index) => texts.slice(index + 1).forEach(other => {
        const a = one.at, b = other.at;
        if (a.left < b.right - 1 && b.left < a.right - 1
            && a.top + 2 < b.bottom - 2 && b.top + 2 < a.bottom - 2)
          faults.push(`${one.words} meets ${other.words}`);
      }));
    }
    const loading = [...inner.querySelectorAll('script, img, link, iframe, object, embed')]
      .map(element => element.outerHTML)
      .concat(view.performance.getEntriesByType('resource').map(entry => entry.name));
    return {
      page: frame.title, wanted: parseInt(frame.style.width), width: view.innerWidth,
      needed: inner.documentElement.scrollWidth, height: inner.documentElement.scrollHeight,
      is_dark: view.matchMedia('(prefers-color-scheme: dark)').matches,
      ground: view.getComputedStyle(inner.body).backgroundColor,
      loading, ran: view.ran === true, faults,
    };
  });
  document.getElementById('report').textContent = JSON.stringify(report);
});
";

/// The document, as Chromium has read and laid it out.
#[must_use]
pub fn dom(env: &TestEnv, page: &Path) -> String {
    run(chromium(env).arg("--dump-dom").arg(page))
        .succeeds()
        .stdout
}

/// How pages, each with a name, look at each of these widths.
#[must_use]
pub fn layouts(
    env: &TestEnv,
    pages: &[(&str, &str)],
    widths: &[u32],
    scheme: Scheme,
) -> Vec<Layout> {
    let frames = pages.iter().flat_map(|(name, page)| {
        widths
            .iter()
            .map(move |width| frame(name, page, *width, 1000))
    });
    let frames: String = frames.collect();
    let outer = env.path().join("frames.html");
    let text = format!(
        "<!doctype html><meta charset=utf-8>{frames}<pre id=report></pre>\
         <script>{MEASURE}</script>"
    );
    fs::write(&outer, text).expect("the folder is ours");
    let dom = run(chromium(env)
        .arg(scheme.option())
        .arg("--dump-dom")
        .arg(&outer))
    .succeeds()
    .stdout;
    let report = dom
        .rsplit_once("<pre id=\"report\">")
        .expect("it is there")
        .1;
    let report = report.split_once("</pre>").expect("it ends").0;
    let report = ["&lt;", "&gt;", "&amp;"]
        .into_iter()
        .zip(["<", ">", "&"])
        .fold(report.to_owned(), |text, (from, to)| text.replace(from, to));
    serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"))
}

/// Draws a page of this size into a PNG.
pub fn screenshot(
    env: &TestEnv,
    page: &str,
    (width, height): (u32, u32),
    scheme: Scheme,
    png: &Path,
) {
    let outer = env.path().join("frame.html");
    let text = format!(
        "<!doctype html><meta charset=utf-8><body style=\"margin:0\">{}",
        frame("page", page, width, height)
    );
    fs::write(&outer, text).expect("the folder is ours");
    run(chromium(env)
        .arg(scheme.option())
        .arg(format!("--window-size={},{height}", width.max(500)))
        .arg(format!("--screenshot={}", png.display()))
        .arg(&outer))
    .succeeds();
    let start = fs::read(png).expect("Chromium wrote it");
    assert!(start.starts_with(b"\x89PNG"), "{}", png.display());
}

/// Prints a page into a PDF.
pub fn print(env: &TestEnv, page: &Path, pdf: &Path) {
    run(chromium(env)
        .arg("--no-pdf-header-footer")
        .arg(format!("--print-to-pdf={}", pdf.display()))
        .arg(page))
    .succeeds();
    let start = fs::read(pdf).expect("Chromium wrote it");
    assert!(start.starts_with(b"%PDF"), "{}", pdf.display());
}

/// A frame that shows a page, with this name.
fn frame(name: &str, page: &str, width: u32, height: u32) -> String {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<iframe title=\"{name}\" style=\"width:{width}px;height:{height}px;border:0;\
         display:block\" srcdoc=\"{page}\"></iframe>"
    )
}

fn chromium(env: &TestEnv) -> Command {
    let mut command = env.command("chromium");
    command
        .args(["--headless", "--disable-gpu", "--hide-scrollbars"])
        // Root has none, nor has a user without namespaces; what is opened here is
        // the test's own.
        .arg("--no-sandbox")
        .arg(format!("--user-data-dir={}", env.path().join("chromium").display()))
        .env("HOME", env.path());
    command
}

impl Scheme {
    fn option(self) -> &'static str {
        match self {
            Self::Light => "--blink-settings=preferredColorScheme=1",
            Self::Dark => "--blink-settings=preferredColorScheme=0",
        }
    }
}
