//! The four types of values, and zfp's functions for each.

use zfp_sys::zfp_stream;

use crate::header::Kind;

type Encode<T> = unsafe extern "C" fn(*mut zfp_stream, *const T) -> usize;
type Decode<T> = unsafe extern "C" fn(*mut zfp_stream, *mut T) -> usize;

mod sealed {
    use crate::value::{Decode, Encode};

    pub trait Functions: Sized {
        /// For one to four dimensions.
        const ENCODE: [Encode<Self>; 4];
        const DECODE: [Decode<Self>; 4];
    }
}

pub(crate) use sealed::Functions;

/// A type that zfp compresses: `i32`, `i64`, `f32` or `f64`.
pub trait Value: Functions + Copy + Default + 'static {
    /// Which one it is.
    const KIND: Kind;
}

macro_rules! value {
    ($type:ty, $kind:expr, $encode:expr, $decode:expr) => {
        impl Functions for $type {
            const ENCODE: [Encode<Self>; 4] = $encode;
            const DECODE: [Decode<Self>; 4] = $decode;
        }
        impl Value for $type {
            const KIND: Kind = $kind;
        }
    };
}

value!(
    i32,
    Kind::I32,
    [
        zfp_sys::zfp_encode_block_int32_1,
        zfp_sys::zfp_encode_block_int32_2,
        zfp_sys::zfp_encode_block_int32_3,
        zfp_sys::zfp_encode_block_int32_4,
    ],
    [
        zfp_sys::zfp_decode_block_int32_1,
        zfp_sys::zfp_decode_block_int32_2,
        zfp_sys::zfp_decode_block_int32_3,
        zfp_sys::zfp_decode_block_int32_4,
    ]
);
value!(
    i64,
    Kind::I64,
    [
        zfp_sys::zfp_encode_block_int64_1,
        zfp_sys::zfp_encode_block_int64_2,
        zfp_sys::zfp_encode_block_int64_3,
        zfp_sys::zfp_encode_block_int64_4,
    ],
    [
        zfp_sys::zfp_decode_block_int64_1,
        zfp_sys::zfp_decode_block_int64_2,
        zfp_sys::zfp_decode_block_int64_3,
        zfp_sys::zfp_decode_block_int64_4,
    ]
);
value!(
    f32,
    Kind::F32,
    [
        zfp_sys::zfp_encode_block_float_1,
        zfp_sys::zfp_encode_block_float_2,
        zfp_sys::zfp_encode_block_float_3,
        zfp_sys::zfp_encode_block_float_4,
    ],
    [
        zfp_sys::zfp_decode_block_float_1,
        zfp_sys::zfp_decode_block_float_2,
        zfp_sys::zfp_decode_block_float_3,
        zfp_sys::zfp_decode_block_float_4,
    ]
);
value!(
    f64,
    Kind::F64,
    [
        zfp_sys::zfp_encode_block_double_1,
        zfp_sys::zfp_encode_block_double_2,
        zfp_sys::zfp_encode_block_double_3,
        zfp_sys::zfp_encode_block_double_4,
    ],
    [
        zfp_sys::zfp_decode_block_double_1,
        zfp_sys::zfp_decode_block_double_2,
        zfp_sys::zfp_decode_block_double_3,
        zfp_sys::zfp_decode_block_double_4,
    ]
);
