#![no_main]

use bagpress_broker::read_back::result;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    std::hint::black_box(result(data));
});
