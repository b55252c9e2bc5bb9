#include "liteseg/drawing.h"

#include <opencv2/imgproc.hpp>

namespace liteseg {

cv::Mat overlay(const cv::Mat& image, const cv::Mat& labels,
                const std::vector<ClassInfo>& classes) {
  constexpr double weight = 0.4;  // of the colours, as in PaddleSeg's overlays
  // What OpenCV makes of each value of a pixel with each class: a row of 256 values a class.
  const int count = static_cast<int>(classes.size());
  cv::Mat values(std::max(count, 1), 256, CV_8UC3), colors(values.size(), CV_8UC3), blended;
  for (int index = 0; index < count; ++index) {
    colors.row(index).setTo(cv::Scalar(classes[static_cast<size_t>(index)].color_bgr));
  }
  for (int value = 0; value < 256; ++value) {
    values.col(value).setTo(cv::Scalar::all(value));
  }
  cv::addWeighted(values, 1 - weight, colors, weight, 0, blended);
  cv::Mat result = image.clone();
  for (int y = 0; y < image.rows; ++y) {
    const int* label = labels.ptr<int>(y);
    auto* pixel = result.ptr<cv::Vec3b>(y);
    for (int x = 0; x < image.cols; ++x) {
      if (label[x] >= 0 && label[x] < count) {  // others stay as they are
        const auto* row = blended.ptr<cv::Vec3b>(label[x]);
        pixel[x] = {row[pixel[x][0]][0], row[pixel[x][1]][1], row[pixel[x][2]][2]};
      }
    }
  }
  return result;
}

cv::Mat legend_bar(const std::vector<ClassInfo>& classes, int width) {
  constexpr int row_height = 18, margin = 6, font = cv::FONT_HERSHEY_SIMPLEX;
  constexpr double size = 0.4;
  std::vector<cv::Point> places;
  int x = margin, rows = 1;
  for (const ClassInfo& entry : classes) {
    int baseline = 0;
    const int text_width = cv::getTextSize(entry.name, font, size, 1, &baseline).width;
    if (x > margin && x + text_width + 18 > width) {
      ++rows;
      x = margin;
    }
    places.emplace_back(x, (rows - 1) * row_height + 4);
    x += text_width + 28;
  }
  cv::Mat canvas(rows * row_height + margin, width, CV_8UC3, cv::Scalar::all(255));
  for (size_t i = 0; i < classes.size(); ++i) {
    const cv::Point at = places[i];
    cv::rectangle(canvas, at + cv::Point(0, 2), at + cv::Point(10, 12),
                  cv::Scalar(classes[i].color_bgr), cv::FILLED);
    cv::putText(canvas, classes[i].name, at + cv::Point(14, 12), font, size, cv::Scalar(40, 40, 40),
                1, cv::LINE_AA);
  }
  return canvas;
}

}  // namespace liteseg
