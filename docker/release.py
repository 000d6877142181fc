"""Signs what `make images` has made, and checks it: `python docker/release.py sign|verify --key FILE`.

What is signed is `images.json`: it has the digest of every image, archive and list of contents, so one signature is
for all. The key is cosign's (`cosign generate-key-pair`; the password of the private one comes from COSIGN_PASSWORD).
No service and no network is needed. The signature is ECDSA P-256 over SHA-256, in base64: openssl checks it as well.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from images import OUT, digest

DOCUMENT, SIGNATURE = "images.json", "images.json.sig"


def sign(cosign: str, key: Path, folder: Path) -> None:
    """Write the signature beside the document."""
    command = [cosign, "sign-blob", "--yes", "--tlog-upload=false", "--key", str(key)]
    command += ["--output-signature", str(folder / SIGNATURE), str(folder / DOCUMENT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def problems(cosign: str, key: Path, folder: Path) -> list[str]:
    """What is not as it was signed; nothing of an unsigned document is believed."""
    command = [cosign, "verify-blob", "--insecure-ignore-tlog=true", "--key", str(key)]
    command += ["--signature", str(folder / SIGNATURE), str(folder / DOCUMENT)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        return [f"{folder / DOCUMENT}: its signature is not of {key}"]
    wrong = []
    for entry in json.loads((folder / DOCUMENT).read_text())["images"].values():
        for kind in ("archive", "contents"):
            path = folder / entry.get(kind, "")
            if path.is_file() and digest(path) != entry[f"{kind}_sha256"]:  # a hospital has only those it needs
                wrong.append(f"{path}: not what was signed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("sign", "verify"))
    parser.add_argument("--key", type=Path, required=True, help="the private key to sign, the public one to verify")
    parser.add_argument("--folder", type=Path, default=OUT)
    parser.add_argument("--cosign", default="cosign")
    arguments = parser.parse_args()
    if arguments.verb == "sign":
        sign(arguments.cosign, arguments.key, arguments.folder)
    found = problems(arguments.cosign, arguments.key, arguments.folder) if arguments.verb == "verify" else []
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
