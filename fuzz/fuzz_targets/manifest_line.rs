#![no_main]

use bagpress_producer::read_back::manifest_line;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    std::hint::black_box(manifest_line(data));
});
