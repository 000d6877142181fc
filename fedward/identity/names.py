"""Names that nobody else can take, and the seed that follows from them."""

from fedward.codec import Codec, seed_of


def update_id_of(federation: str, site: str, base_version: int, sequence: int) -> bytes:
    """The 32-byte id of a site's update, known before it is made (docs/adr/0003).

    Site, base version and the site's own counter are inside, so two updates never share an id, and the
    coordinator can tell that the site whose topic an offer came on is the site that the id is of.
    """
    return seed_of(federation, site, base_version, sequence)


def update_seed(codec: Codec, base_version: int, update_id: bytes) -> bytes:
    """The seed that an update is encoded with: one for all from a base version where the codec shares it, or its id."""
    return seed_of("rotation", base_version) if codec.shared_seed else update_id
