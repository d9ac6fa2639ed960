//! Every file in `bad/` is refused whole, and the text of the refusal is what an operator reads: it is held still.
use std::{fs, path::Path};

use plainroute_config::load;

#[test]
fn every_bad_file_says_what_is_wrong_and_where() {
    let mut files: Vec<_> = fs::read_dir("tests/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 13, "the folder of bad files shrank");
    for file in files {
        let errors = load(&[&file]).expect_err(&format!("{} is accepted", file.display()));
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "bad_snapshots" }, {
            insta::assert_snapshot!(name, errors.to_string());
        });
        for error in &errors {
            assert_eq!(Path::new(&error.file), file);
        }
    }
}
