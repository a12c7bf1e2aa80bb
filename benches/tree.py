"""A mixed tree, the same for the same seed and size; and whether two trees are equal."""

import itertools
import os
import random
import stat

WORDS = ("let fn match impl self return if else for in while struct enum pub use crate async await move result error "
         "option value index count buffer offset length state plan resource checkpoint provider bank section key "
         "password token request answer service manager graph node edge flow task journal event status project "
         "// because /// the of a to and is not when it that").split()


class Maker:
    """Makes files below `root`, content and times from one stream of random numbers."""

    def __init__(self, root, seed=20200229):
        self.root, self.random = root, random.Random(seed)
        self.files, self.bytes = 0, 0
        pick, below = self.random.choice, self.random.randrange
        # Lines are made once: a million of them one by one would take longer than the bench.
        self.lines = [(" " * (4 * below(5)) + " ".join(pick(WORDS) for _ in range(2 + below(9)))
                       + f" {below(10**6)};\n").encode() for _ in range(60_000)]

    def write(self, name, content, mode=0o644):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        when = 1_577_836_800_000_000_000 + self.random.randrange(10**17)
        os.utime(path, ns=(when, when))
        self.files += 1
        self.bytes += len(content)
        return path

    def text(self, size):
        start = self.random.randrange(len(self.lines))
        picked = self.random.choices(self.lines, k=size // 36 + 1)
        return b"".join(itertools.chain([self.lines[start]], picked))[:size]

    def binary(self, size):
        """As programs and tables are: compresses to about a half."""
        content = bytearray(size + 8)
        content[0::2] = self.random.randbytes(len(content[0::2]))
        content[1::4] = self.random.randbytes(1) * len(content[1::4])
        return bytes(content[:size])

    def size(self, least, most):
        """Many small, few big."""
        return int(least * (most / least) ** (self.random.random() ** 1.5))


def make(root, quick):
    """Makes the tree; answers its number of files and bytes. 1.1 GB in 22,000 files, or a twentieth."""
    maker = Maker(root)
    part = 20 if quick else 1
    megabyte = 1 << 20
    sources = []
    for number in range(15_000 // part):
        folder = f"source/{number % 40}/module{number % 400}"
        sources.append(maker.write(f"{folder}/file{number}.rs", maker.text(maker.size(500, 60_000))))
    for number in range(4_500 // part):
        maker.write(f"small/{number % 90}/note{number}", maker.text(maker.random.randrange(600)))
    for number in range(1_500 // part):
        maker.write(f"bin/{number % 30}/tool{number}", maker.binary(maker.size(20_000, 800_000)), 0o755)
    for number in range(300 // part):
        maker.write(f"photos/{number % 10}/{number}.jpg", maker.random.randbytes(maker.size(200_000, 3_000_000)))
    for number, source in enumerate(sources[: 800 // part]):
        maker.write(f"copy/{number % 8}/{source.name}", source.read_bytes())
    large = maker.binary(100 * megabyte // part)
    maker.write("large/log.txt", maker.text(150 * megabyte // part))
    maker.write("large/disk.img", large + bytes(50 * megabyte // part) + large[: len(large) // 2])
    maker.write("large/archive.tar.gz", maker.random.randbytes(200 * megabyte // part))
    for number in range(200 // part):
        (root / f"copy/link{number}").symlink_to(os.path.relpath(sources[number], root / "copy"))
    return maker.files, maker.bytes


def entries(root):
    for folder, folders, files in os.walk(root):
        for name in itertools.chain(folders, files):
            path = os.path.join(folder, name)
            yield os.path.relpath(path, root), path


def same_content(one, other):
    with open(one, "rb") as left, open(other, "rb") as right:
        while True:
            block = left.read(1 << 20)
            if block != right.read(1 << 20):
                return False
            if not block:
                return True


def differences(root, copy):
    """What is not the same in `copy`: names, kinds, modes, times of files, link targets, content."""
    left, right = dict(entries(root)), dict(entries(copy))
    found = [f"only in one: {name}" for name in sorted(left.keys() ^ right.keys())]
    for name in sorted(left.keys() & right.keys()):
        one, other = os.lstat(left[name]), os.lstat(right[name])
        if one.st_mode != other.st_mode:
            found.append(f"mode of {name}: {one.st_mode:o}, {other.st_mode:o}")
        elif stat.S_ISLNK(one.st_mode):
            if os.readlink(left[name]) != os.readlink(right[name]):
                found.append(f"target of {name}")
        elif stat.S_ISREG(one.st_mode):
            if one.st_mtime_ns != other.st_mtime_ns:
                found.append(f"time of {name}")
            if one.st_size != other.st_size or not same_content(left[name], right[name]):
                found.append(f"content of {name}")
    return found


def stored(path):
    """Bytes of the files below a path."""
    return sum(os.lstat(entry).st_size for _, entry in entries(path) if not os.path.isdir(entry))
