#include "liteseg/checksum.h"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <memory>
#include <vector>

#include "liteseg/error.h"

namespace liteseg {
namespace {

constexpr const char* kHex = "0123456789abcdef";

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }

  void add(const char* bytes, size_t count) { EVP_DigestUpdate(context_.get(), bytes, count); }

  std::string hex() {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_DigestFinal_ex(context_.get(), sum, &length);
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
      text += kHex[sum[i] >> 4];
      text += kHex[sum[i] & 15];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

/// The fewest digits that give the number again, laid out as Python's `repr` does.
std::string float_text(double value) {
  char written[32];
  const auto end =
      std::to_chars(written, written + sizeof written, value, std::chars_format::scientific);
  const std::string scientific(written, static_cast<size_t>(end.ptr - written));  // -1.25e-05
  const size_t exponent_at = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(exponent_at + 1));
  if (exponent < -4 || exponent >= 16) {
    return scientific;
  }
  std::string digits;
  for (const char c : scientific.substr(0, exponent_at)) {
    if (c >= '0' && c <= '9') {
      digits += c;
    }
  }
  const std::string sign = scientific[0] == '-' ? "-" : "";
  if (exponent < 0) {
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  }
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  }
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

void append_unit(std::string& json, unsigned unit) {
  json += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) {
    json += kHex[unit >> shift & 15];
  }
}

/// A JSON string of ASCII, from UTF-8 that yaml-cpp has decoded.
std::string string_text(const std::string& text) {
  static const std::map<char, const char*> escapes = {{'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"},
                                                      {'\r', "\\r"}, {'\t', "\\t"},  {'\b', "\\b"},
                                                      {'\f', "\\f"}};
  std::string json = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto first = static_cast<unsigned char>(text[i]);
    const auto escape = escapes.find(text[i]);
    if (escape != escapes.end()) {
      json += escape->second;
    } else if (first >= 0x20 && first < 0x80) {
      json += text[i];
    } else if (first < 0x20) {
      append_unit(json, first);
    } else {
      const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
      unsigned point = first & (0x3fu >> more);
      for (int k = 0; k < more && i + 1 < text.size(); ++k) {
        point = point << 6 | (static_cast<unsigned char>(text[++i]) & 0x3fu);
      }
      if (point >= 0x10000) {
        append_unit(json, 0xd800 + ((point - 0x10000) >> 10));
        point = 0xdc00 + (point & 0x3ff);
      }
      append_unit(json, point);
    }
  }
  return json + '"';
}

/// Takes digits away from the front, and tells how many there were.
size_t take_digits(std::string& text) {
  const size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
  text.erase(0, count);
  return count;
}

/// Whether a scalar is a number as Python writes floats: -1.5, 0.001, 1.0e-05.
bool is_float(std::string text) {
  text.erase(0, text[0] == '-');
  if (!take_digits(text) || text[0] != '.') {
    return false;
  }
  text.erase(0, 1);
  take_digits(text);
  if (text.size() > 2 && text[0] == 'e' && (text[1] == '-' || text[1] == '+')) {
    text.erase(0, 2);
    return take_digits(text) && text.empty();
  }
  return text.empty();
}

bool is_integer(std::string text) {
  text.erase(0, text[0] == '-');
  return take_digits(text) && text.empty();
}

/// A scalar without quotes may be more than a string.
std::string plain_text(const std::string& text) {
  if (text == "true" || text == "false" || is_integer(text)) {
    return text;
  }
  double value = 0;
  if (is_float(text) &&
      std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc()) {
    return float_text(value);
  }
  return string_text(text);
}

/// What Python's `json.dumps(value, sort_keys=True)` gives.
std::string json_text(const YAML::Node& node) {
  if (node.IsNull()) {
    return "null";
  }
  if (node.IsScalar()) {
    return node.Tag() == "?" ? plain_text(node.Scalar()) : string_text(node.Scalar());
  }
  std::string json;
  if (node.IsSequence()) {
    for (const YAML::Node& value : node) {
      json += (json.empty() ? "" : ", ") + json_text(value);
    }
    return "[" + json + "]";
  }
  std::map<std::string, YAML::Node> sorted;
  for (const auto& pair : node) {
    sorted.emplace(pair.first.Scalar(), pair.second);
  }
  for (const auto& [key, value] : sorted) {
    json += (json.empty() ? "" : ", ") + string_text(key) + ": " + json_text(value);
  }
  return "{" + json + "}";
}

}  // namespace

std::string file_sha256(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  Sha256 digest;
  std::vector<char> block(1 << 20);
  do {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    digest.add(block.data(), static_cast<size_t>(file.gcount()));
  } while (file);
  if (!file.eof()) {
    throw Error("cannot read " + printable(path.string()));
  }
  return digest.hex();
}

std::string deploy_sha256(const YAML::Node& content) {
  YAML::Node others = YAML::Clone(content);
  others["liteseg"]["sha256"].remove(kDeployFile);
  const std::string json = json_text(others);
  Sha256 digest;
  digest.add(json.data(), json.size());
  return digest.hex();
}

}  // namespace liteseg
