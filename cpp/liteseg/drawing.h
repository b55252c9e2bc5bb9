#pragma once

#include <opencv2/core.hpp>
#include <vector>

#include "liteseg/exported.h"

namespace liteseg {

/// Blends an image, CV_8UC3 in BGR, with the colours of its labels, CV_32S.
cv::Mat overlay(const cv::Mat& image, const cv::Mat& labels, const std::vector<ClassInfo>& classes);

/// Draws colour and name of classes, in as many rows as `width` pixels require.
cv::Mat legend_bar(const std::vector<ClassInfo>& classes, int width);

}  // namespace liteseg
