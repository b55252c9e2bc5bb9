#include "liteseg/error.h"

#include <cstdio>

namespace liteseg {

std::string printable(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F, in UTF-8, control terminals too.
    const bool is_c1 = byte == 0xc2 && i + 1 < text.size() &&
                       static_cast<unsigned char>(text[i + 1]) - 0x80u < 0x20u;
    if (byte >= 0x20 && byte != 0x7f && !is_c1) {
      result += text[i];
      continue;
    }
    char escaped[5];
    std::snprintf(escaped, sizeof escaped, "\\x%02x",
                  is_c1 ? static_cast<unsigned char>(text[++i]) : byte);
    result += escaped;
  }
  return result;
}

std::string last_line(std::string_view message) {
  const size_t end = message.find_last_not_of(" \n\r\t");
  if (end == std::string_view::npos) {
    return "no reason given";
  }
  message = message.substr(0, end + 1);
  return printable(message.substr(message.find_last_of('\n') + 1));
}

}  // namespace liteseg
