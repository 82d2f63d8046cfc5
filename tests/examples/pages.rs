use imgbuild_tests::density_run::complete;
fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let run = complete();
    let page = imgbuild::page::render(&run);
    std::fs::write(dir.join("run.html"), page).unwrap();
    let mut other = complete();
    other.stages.pop();
    other
        .conditions
        .guest
        .insert("sharing".into(), "guest".into());
    for stage in &mut other.stages {
        stage.memory.bytes = stage.memory.bytes * 3 / 2;
        for a in &mut stage.answers {
            a.seconds *= 1.7;
        }
    }
    let page = imgbuild::page::compare(&[
        ("thousand-all".into(), run),
        ("three-hundred-guest".into(), other),
    ]);
    std::fs::write(dir.join("compare.html"), page).unwrap();
}
