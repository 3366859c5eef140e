"""syntaxes.py IN OUT: the slice IN as JPEG 2000 lossless, by Pillow's OpenJPEG."""

import io
import sys

import pydicom
from PIL import Image
from pydicom.encaps import encapsulate

dataset = pydicom.dcmread(sys.argv[1])
stream = io.BytesIO()
Image.frombytes("I;16", (dataset.Columns, dataset.Rows), dataset.PixelData).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
dataset.PixelData = encapsulate([stream.getvalue()])
dataset["PixelData"].is_undefined_length = True
dataset["PixelData"].VR = "OB"
dataset.save_as(sys.argv[2], enforce_file_format=True)
