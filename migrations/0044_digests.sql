-- Files are named by BLAKE3, and long values are in the digest of a dataset by theirs.
COMMENT ON COLUMN instance.digest IS 'SHA-256 of the dataset without group 0002, as Explicit VR Little Endian; values of 64 KiB or more are in it by their BLAKE3, in rows of before as they are.';
COMMENT ON COLUMN instance.archive_key IS 'Name of the Part 10 file in the archive: blake3/ab/…, or of before sha256/ab/cd/….';
