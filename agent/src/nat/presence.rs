//! Whether the kernel has nf_tables in memory, so that a table may exist: asking nf_tables itself would load it.
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// There where it is loaded as a module.
const MODULE: &str = "/sys/module/nf_tables";
/// Has its functions where it is built in.
const SYMBOLS: &str = "/proc/kallsyms";
const FUNCTION: &[u8] = b" nf_tables_newtable";

/// In doubt it is there.
pub(super) fn nf_tables_in_memory() -> bool {
    Path::new(MODULE).exists()
        || File::open(SYMBOLS).and_then(|file| tells(BufReader::new(file))).unwrap_or(true)
}

fn tells(mut symbols: impl BufRead) -> io::Result<bool> {
    let mut line = Vec::new();
    let mut any = false;
    while symbols.read_until(b'\n', &mut line)? != 0 {
        any = true;
        if line.windows(FUNCTION.len()).any(|part| part == FUNCTION) {
            return Ok(true);
        }
        line.clear();
    }
    Ok(!any)
}

#[cfg(test)]
mod tests {
    use super::tells;

    #[test]
    fn symbols_tell_and_no_symbols_are_doubt() {
        let with = b"0000 t nft_do_chain\n0000 t nf_tables_newtable\t[nf_tables]\n";
        assert!(tells(&with[..]).unwrap());
        assert!(!tells(&b"0000 t nf_hook_slow\n0000 T nf_register\n"[..]).unwrap());
        assert!(tells(&b""[..]).unwrap());
    }
}
