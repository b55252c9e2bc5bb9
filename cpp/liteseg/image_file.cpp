#include "liteseg/image_file.h"

#include <png.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <opencv2/imgcodecs.hpp>

#include "liteseg/error.h"

namespace fs = std::filesystem;

namespace liteseg {
namespace {

/// Tells whether a JPEG has its end. OpenCV fills the missing part of a truncated one with grey.
bool is_complete_jpeg(const std::vector<uchar>& file) {
  const size_t size = file.size();
  if (size > 4 && file[size - 2] == 0xff && file[size - 1] == 0xd9) {
    return true;
  }
  // Some cameras append data. Segments have a length; the pixels between them have no marker but
  // FF00 and restarts.
  for (size_t i = 2; i + 1 < size;) {
    const uchar marker = file[i + 1];
    if (file[i] != 0xff || marker == 0x00 || marker == 0xff || (marker >= 0xd0 && marker <= 0xd8)) {
      ++i;
    } else if (marker == 0xd9) {
      return true;
    } else if (i + 3 < size) {
      i += 2 + (static_cast<size_t>(file[i + 2]) << 8 | file[i + 3]);
    } else {
      return false;
    }
  }
  return false;
}

[[noreturn]] void refuse_writing(const fs::path& path, int error) {
  throw Error("cannot write " + printable(path.string()) + ": " + std::strerror(error));
}

}  // namespace

int64_t max_pixels() {
  const char* set = std::getenv("OPENCV_IO_MAX_IMAGE_PIXELS");
  const int64_t value = set ? std::atoll(set) : 0;
  return value > 0 ? value : kMostPixels;
}

cv::Mat read_image(const fs::path& path) {
  const std::string name = printable(path.string());
  if (!fs::is_regular_file(path)) {
    throw ImageError(fs::is_directory(path) ? "image " + name + " is a folder, not a file"
                                            : "image not found: " + name);
  }
  std::vector<uchar> content(fs::file_size(path));
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(content.data()),
                 static_cast<std::streamsize>(content.size()))) {
    throw ImageError("cannot read image " + name + ": " + std::strerror(errno));
  }
  constexpr std::string_view pointer = "version https://git-lfs.github.com/spec/v1";
  if (content.size() >= pointer.size() &&
      std::memcmp(content.data(), pointer.data(), pointer.size()) == 0) {
    throw ImageError("cannot read image " + name +
                     ": it is a Git LFS pointer, not the image; run `git lfs pull`");
  }
  const bool is_jpeg = content.size() > 2 && content[0] == 0xff && content[1] == 0xd8;
  cv::Mat image;
  if (!content.empty() && (!is_jpeg || is_complete_jpeg(content))) {
    try {
      image = cv::imdecode(content, cv::IMREAD_COLOR);
    } catch (const cv::Exception& error) {
      if (std::strstr(error.what(), "CV_IO_MAX_IMAGE")) {
        throw ImageError(name + " is too large: the limit is " + std::to_string(max_pixels()) +
                         " pixels in all, and --max_pixels sets it");
      }
    }
  }
  if (image.empty()) {
    throw ImageError("cannot read image " + name + ": it is not an image, or is truncated");
  }
  return image;
}

void write_file(const fs::path& path, const void* content, size_t bytes) {
  static std::atomic<unsigned> number{0};
  std::error_code failed;
  fs::create_directories(path.parent_path(), failed);
  if (failed) {
    refuse_writing(path, failed.value());
  }
  const std::string name = "." + path.filename().string().substr(0, 48) + "." +
                           std::to_string(getpid()) + "-" + std::to_string(number++) + ".part";
  const fs::path scratch = path.parent_path() / name;
  std::FILE* file = std::fopen(scratch.c_str(), "wb");
  if (!file) {
    refuse_writing(path, errno);
  }
  const bool written = std::fwrite(content, 1, bytes, file) == bytes;
  if (std::fclose(file) != 0 || !written || std::rename(scratch.c_str(), path.c_str()) != 0) {
    const int error = errno;
    fs::remove(scratch, failed);
    refuse_writing(path, error);
  }
}

void write_image(const fs::path& path, const cv::Mat& image) {
  std::vector<uchar> content;
  if (!cv::imencode(path.extension().string(), image, content)) {
    throw Error("cannot write " + printable(path.string()));
  }
  write_file(path, content.data(), content.size());
}

void write_label_map(const fs::path& path, const cv::Mat& labels,
                     const std::vector<ClassInfo>& classes) {
  double highest = 0;
  cv::minMaxIdx(labels, nullptr, &highest);
  if (highest > 255) {
    throw ImageError("class " + std::to_string(static_cast<int>(highest)) +
                     " does not fit a label image, which is 8-bit: 0 to 255");
  }
  cv::Mat indices;
  labels.convertTo(indices, CV_8U);
  const size_t entries = std::max(classes.size(), static_cast<size_t>(highest) + 1);
  std::vector<uchar> palette(3 * entries);
  for (size_t i = 0; i < classes.size(); ++i) {
    for (int channel = 0; channel < 3; ++channel) {
      palette[3 * i + static_cast<size_t>(channel)] = classes[i].color_bgr[2 - channel];
    }
  }
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(indices.cols);
  png.height = static_cast<png_uint_32>(indices.rows);
  png.format = PNG_FORMAT_RGB_COLORMAP;
  png.colormap_entries = static_cast<png_uint_32>(entries);
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<uchar> content(bytes);
  if (!png_image_write_to_memory(&png, content.data(), &bytes, 0, indices.data, 0,
                                 palette.data())) {
    throw Error("cannot write " + printable(path.string()) + ": " + png.message);
  }
  write_file(path, content.data(), bytes);
}

}  // namespace liteseg
