"""Google Tink as the second implementation of sealed files: seals and opens under a key file.

    tink_peer.py open KEY IN OUT            opens a sealed file; exit 65 when Tink refuses it
    tink_peer.py seal KEY HEADER IN OUT     seals a file behind the 512 bytes of HEADER

KEY holds the 32 raw bytes. The format is told in docs/src/formats/sealed-file.md.
"""

import io
import pathlib
import sys

import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

HEADER_LENGTH = 512
TYPE_URL = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"


class Kept(io.BytesIO):
    """A buffer that keeps its content when Tink closes it."""

    def close(self):
        self.content = self.getvalue()
        super().close()


def primitive(key):
    parameters = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=65536, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    proto = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(params=parameters, key_value=key)
    keyset = tink_pb2.Keyset(primary_key_id=1)
    keyset.key.add(
        key_data=tink_pb2.KeyData(
            type_url=TYPE_URL, value=proto.SerializeToString(), key_material_type=tink_pb2.KeyData.SYMMETRIC
        ),
        status=tink_pb2.ENABLED,
        key_id=1,
        output_prefix_type=tink_pb2.RAW,
    )
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def main(verb, key, *paths):
    streaming_aead.register()
    aead = primitive(pathlib.Path(key).read_bytes())
    if verb == "open":
        source, target = map(pathlib.Path, paths)
        sealed = source.read_bytes()
        header, body = sealed[:HEADER_LENGTH], io.BytesIO(sealed[HEADER_LENGTH:])
        try:
            with aead.new_decrypting_stream(body, header) as stream:
                plaintext = stream.read()
        except tink.TinkError as error:
            print(f"Tink refuses: {error}", file=sys.stderr)
            return 65
        target.write_bytes(plaintext)
    else:
        header, source, target = map(pathlib.Path, paths)
        kept = Kept()
        with aead.new_encrypting_stream(kept, header.read_bytes()) as stream:
            stream.write(source.read_bytes())
        target.write_bytes(header.read_bytes() + kept.content)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
