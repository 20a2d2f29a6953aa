"""The JPEGs that benches decode, made from one photograph of at least 12 megapixels."""
import os

import common

# name, size, bytes, pictures a turn of bench/decode, and what is wanted of ours against
# OpenCV's imdecode + resize, and of what is served against GPU REST Engine's design.
PICTURES = [("12 MP 1.1 MB", (4000, 3000), 1100000, 4, 4.5, 5),
            ("12 MP 3 MB", (4000, 3000), 3000000, 3, 2.7, 2.7),
            ("500 x 375", (500, 375), 40000, 80, 1.6, 6)]


def default_photograph():
    return os.path.join(common.test_data(), "images", "jpeg", "slrhills.jpg")


def encode(cv2, picture, size, bytes_wanted):
    """The quality whose file comes nearest: sizes grow with it."""
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    low, high, files = 60, 99, {}
    while low <= high:
        middle = (low + high) // 2
        files[middle] = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, middle])[1]
        if len(files[middle]) < bytes_wanted:
            low = middle + 1
        else:
            high = middle - 1
    return min(files.values(), key=lambda file: abs(len(file) - bytes_wanted))


def write(cv2, path, size, bytes_wanted, to):
    """The photograph at `path`, so large; the bytes, or None if it cannot be read."""
    photograph = cv2.imread(path)
    if photograph is None:
        return None
    data = encode(cv2, photograph, size, bytes_wanted)
    data.tofile(to)
    return data
