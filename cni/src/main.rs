//! `plainroute-ipam`: see [`plainroute_cni::program`].
fn main() -> std::process::ExitCode {
    plainroute_cni::program::run()
}
