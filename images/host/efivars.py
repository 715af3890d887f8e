"""Writes variables into an OVMF variable store (UEFI Platform Initialization, firmware volumes; EDK II's VariableFormat.h).

For enrolling Secure Boot keys without booting anything: PK, KEK and db are laid down as firmware itself would keep them.
"""

import struct
import uuid

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SECURE_BOOT_ENABLE = uuid.UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")
OWNER = uuid.UUID("6d726b68-6f73-4d00-8000-0000000000ff")
AUTHENTICATED_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
# Non-volatile, boot services, run time, time-based authentication.
ATTRIBUTES, AUTHENTICATED = 0x3, 0x27
ADDED = 0x3f


def signature_list(kind, data):
    """One EFI_SIGNATURE_LIST with one entry."""
    return kind.bytes_le + struct.pack("<III", 28 + 16 + len(data), 0, 16 + len(data)) + OWNER.bytes_le + data


def variable(name, vendor, attributes, data):
    """AUTHENTICATED_VARIABLE_HEADER, name, data; padded as the next one wants it."""
    time = struct.pack("<HBBBBBxIhBx", 2023, 11, 14, 22, 13, 20, 0, 0, 0) if attributes == AUTHENTICATED else bytes(16)
    encoded = name.encode("utf-16le") + b"\0\0"
    header = struct.pack("<HBBIQ", 0x55aa, ADDED, 0, attributes, 0) + time + struct.pack("<III", 0, len(encoded), len(data))
    whole = header + vendor.bytes_le + encoded + data
    return whole + b"\xff" * (-len(whole) % 4)


def enrol(empty, platform_key, exchange_key, image_key):
    """The store `empty` with these certificates (DER) as PK, KEK and db, and Secure Boot on."""
    store = bytearray(empty)
    start = struct.unpack_from("<H", store, 48)[0]  # EFI_FIRMWARE_VOLUME_HEADER.HeaderLength
    size = struct.unpack_from("<I", store, start + 16)[0]
    if store[start:start + 16] != AUTHENTICATED_STORE.bytes_le or store[start + 28:start + 60] != b"\xff" * 32:
        raise ValueError("not an empty OVMF variable store of the authenticated format")
    # dbx must exist, and firmware refuses an empty one: the digest of nothing, which no image has.
    nothing = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    content = b"".join(variable(*fields) for fields in (
        ("db", IMAGE_SECURITY, AUTHENTICATED, signature_list(X509, image_key)),
        ("dbx", IMAGE_SECURITY, AUTHENTICATED, signature_list(SHA256, nothing)),
        ("KEK", GLOBAL, AUTHENTICATED, signature_list(X509, exchange_key)),
        ("PK", GLOBAL, AUTHENTICATED, signature_list(X509, platform_key)),
        ("SecureBootEnable", SECURE_BOOT_ENABLE, ATTRIBUTES, b"\x01"),
    ))
    if 28 + len(content) > size:
        raise ValueError("the keys do not fit into the variable store")
    store[start + 28:start + 28 + len(content)] = content
    return bytes(store)
