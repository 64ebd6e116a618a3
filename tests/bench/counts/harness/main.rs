//! Runs each benchmark of `counts` under valgrind, by gungraun, which prints a line of JSON for each.
//!
//! Instructions do not depend on what else the machine does. They do depend on the compiler; a little on the C
//! library (Debian 12 and 13 are 1.4 % apart at most); and on the processor, of which the C library is therefore
//! told to use no more than every amd64 has.

use gungraun::{
    Bench, BinaryBenchmark, BinaryBenchmarkConfig, Callgrind, Command, FlamegraphConfig, Sandbox,
    binary_benchmark_group, main,
};

binary_benchmark_group!(
    name = counts,
    benchmarks = |group: &mut BinaryBenchmarkGroup| {
        let mut count = BinaryBenchmark::new("count");
        for name in NAMES {
            let mut bench = Bench::new(*name);
            let bench = match *name {
                "drain_among_few" => bench.setup(|| wait("20000")),
                "drain_among_many" => bench.setup(|| wait("1000000")),
                _ => &mut bench,
            };
            count.bench(bench.command(Command::new(PROGRAM).arg(name)));
        }
        group.binary_benchmark(count);
    }
);

main!(
    config = BinaryBenchmarkConfig::default()
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-SSSE3,-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS")
        .tool(
            Callgrind::with_args([
                "--cache-sim=no",
                "--toggle-collect=counts::measured*",
                "--toggle-collect=*thread_start*",
            ])
            .flamegraph(FlamegraphConfig::default()),
        )
        // A folder of its own, which vanishes: the store's.
        .sandbox(Sandbox::new(true)),
    binary_benchmark_groups = counts
);

/// Leaves so many rows for a drain, in its folder and without valgrind.
fn wait(rows: &str) {
    let done = std::process::Command::new(PROGRAM).args(["wait", rows]).status();
    assert!(done.is_ok_and(|done| done.success()), "no rows wait");
}

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../target/release/counts");

const NAMES: &[&str] = &[
    "decode_v3_1_1",
    "decode_v5",
    "decode_v5_two_user_properties",
    "encode_v3_1_1",
    "encode_v5",
    "encode_v5_two_user_properties",
    "match_among_1_000",
    "match_among_10_000",
    "match_among_100_000",
    "route_qos_0",
    "route_qos_1",
    "pass_v3_1_1",
    "pass_qos_1",
    "pass_qos_2",
    "pass_to_1_000",
    "pass_among_1_000",
    "pass_among_100_000",
    "keep_qos_1",
    "fan_out_to_1_000",
    "encode_a_copy_alone",
    "encode_copies_of_1_000",
    "append_by_100",
    "drain_among_few",
    "drain_among_many",
];
