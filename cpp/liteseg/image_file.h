#pragma once

#include <filesystem>
#include <opencv2/core.hpp>
#include <vector>

#include "liteseg/exported.h"

namespace liteseg {

/// Pixels of an image, unless OPENCV_IO_MAX_IMAGE_PIXELS says otherwise, which OpenCV reads before
/// main() starts: the program starts itself again with it, a user of the library sets it.
inline constexpr int64_t kMostPixels = 178'956'970;
int64_t max_pixels();

/// Reads an image as Python does: (H, W) of CV_8UC3, BGR. Throws ImageError.
cv::Mat read_image(const std::filesystem::path& path);

/// Writes a file atomically; its folder is created if missing. Throws Error.
void write_file(const std::filesystem::path& path, const void* content, size_t bytes);

/// Writes an image in the format of the file's suffix.
void write_image(const std::filesystem::path& path, const cv::Mat& image);

/// Writes class indices, CV_32S, as a PNG with a palette.
void write_label_map(const std::filesystem::path& path, const cv::Mat& labels,
                     const std::vector<ClassInfo>& classes);

}  // namespace liteseg
