#![no_main]

use bagpress_objstore::read_back::object_meta;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    std::hint::black_box(object_meta(data));
});
