//! The messages' codec, with small buffers.
//!
//! **Invariant:** what a stream takes while nothing comes on it does not depend on what may come.
//! tonic's own codec begins with 8 KiB in each direction, of which a followed session that is quiet
//! needs nothing.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a buffer begins with, in bytes: an envelope of the usual size fits. It grows with what comes.
const BEGIN: usize = 512;
/// When a sender hands over what it has encoded, as in tonic.
const YIELD: usize = 32 * 1024;

/// Protobuf, by prost. The generated stubs name it.
pub(crate) struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BEGIN, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BEGIN, YIELD))
    }
}
