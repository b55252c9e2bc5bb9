#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace liteseg {

/// What a user can put right: the message says what is wrong, where, and what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An error of one image; others can still be segmented.
class ImageError : public Error {
 public:
  using Error::Error;
};

/// Returns a text of a user's file for a terminal: control characters are escaped.
std::string printable(std::string_view text);

/// Returns the last line of a library's message.
std::string last_line(std::string_view message);

}  // namespace liteseg
