//! What the fuzzer found worth keeping (see fuzz/README.md) still holds.

#[path = "../../../fuzz/checks/lines.rs"]
mod checks;

#[test]
fn the_corpus_of_the_line_splitter_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/lines");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        checks::lines(&std::fs::read(file.unwrap().path()).unwrap());
    }
}
