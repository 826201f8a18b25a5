#![no_main]

use bagpress_objstore::read_back::staging_messages;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    std::hint::black_box(staging_messages(data));
});
