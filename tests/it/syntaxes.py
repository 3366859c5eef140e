"""syntaxes.py FORMAT IN OUT: the slice IN in another transfer syntax, by encoders that are not ours.

FORMAT: j2k (Pillow's OpenJPEG), htj2k (OpenJPH), jxl (libjxl, 16 bits), jxl-stored (the bits of BitsStored), dct (libjpeg-turbo,
12 bits); or what is to be refused: jxl-lossy, jxl-scaled, jxl-float, jxl-colour.
"""

import io
import sys

import imagecodecs
import numpy
import pydicom
from PIL import Image
from pydicom._uid_dict import UID_dictionary
from pydicom.encaps import encapsulate



def j2k(words):
    stream = io.BytesIO()
    image = Image.frombytes("I;16", (words.shape[1], words.shape[0]), words.tobytes())
    image.save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    return stream.getvalue()


def htj2k(words):
    return imagecodecs.htj2k_encode(words.view("<i2") if dataset.PixelRepresentation else words, reversible=True)


def jxl(words, **options):
    return imagecodecs.jpegxl_encode(words, lossless=True, **options)


FORMATS = {
    "j2k": ("90", j2k),
    "htj2k": ("201", htj2k),
    "jxl": ("110", jxl),
    "jxl-stored": ("110", lambda words: jxl(words, bitspersample=int(dataset.BitsStored))),
    "jxl-lossy": ("112", lambda words: imagecodecs.jpegxl_encode(words, lossless=False, distance=1.0)),
    "jxl-scaled": ("110", lambda words: jxl((words.astype("u4") * 65535 // 4095).astype("<u2"))),
    "jxl-float": ("110", lambda words: jxl((words / 65535).astype("<f4"))),
    "jxl-colour": ("110", lambda words: jxl(numpy.stack([words] * 3, axis=-1))),
    "dct": ("51", lambda words: imagecodecs.jpeg8_encode(words, level=95, bitspersample=12)),
}
# pydicom 3.0 knows no JPEG XL, and writes no syntax that it does not know.
for number in ("110", "112"):
    UID_dictionary[f"1.2.840.10008.1.2.4.{number}"] = ("JPEG XL", "Transfer Syntax", "", "", "JPEGXL")
form, source, out = sys.argv[1:]
dataset = pydicom.dcmread(source)
syntax, encode = FORMATS[form]
words = numpy.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
dataset.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.4.{syntax}"
dataset.PixelData = encapsulate([encode(words)])
dataset["PixelData"].is_undefined_length = True
dataset["PixelData"].VR = "OB"
dataset.save_as(out, enforce_file_format=True)
