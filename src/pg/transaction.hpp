// Transactions and SPI connections as scopes, and SQL of our own with text parameters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

// A top-level transaction of a worker. Aborts unless committed. READ COMMITTED and writable, whatever the role's
// or the database's defaults are.
class Transaction {
  public:
    Transaction();
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    // Commits as whoever is the current user: deferred triggers that user code may still have left run as that user.
    // The user is left alone, so that SET ROLE outlives its transaction; AsRole puts back what it changed.
    void commit();

  private:
    Oid user_;
    int security_context_;
    bool open_ = true;
};

// An SPI connection. When an error flies past, the abort of the (sub)transaction cleans up instead.
class Spi {
  public:
    explicit Spi(int options = 0);
    ~Spi();
    Spi(const Spi&) = delete;
    Spi& operator=(const Spi&) = delete;

  private:
    int exceptions_;
};

using Text = std::optional<std::string>;

// Parameters and values are text: the statements cast ($1::bigint). nullopt is NULL.
inline Text text(std::string_view s) { return std::string(s); }
inline Text text(const char* s) { return std::string(s); }  // not by way of bool
inline Text text(std::int64_t n) { return std::to_string(n); }
inline Text text(int n) { return std::to_string(n); }
inline Text text(Oid n) { return std::to_string(n); }
inline Text text(bool b) { return std::string(b ? "t" : "f"); }
Text text(double d);

std::int64_t as_int(const Text& value);
double as_double(const Text& value);
bool as_bool(const Text& value);
Oid as_oid(const Text& value);
std::string as_string(const Text& value);

struct Rows {
    std::vector<std::vector<Text>> rows;
    std::uint64_t processed = 0;

    bool empty() const noexcept { return rows.empty(); }
    const std::vector<Text>& front() const { return rows.front(); }
};

// Runs one statement with text parameters; the plan is kept for the life of the process under the statement's text.
// Needs an SPI connection and, outside a Bookkeeping scope, is resolved by the current search_path.
Rows query(std::string_view sql, std::initializer_list<Text> parameters = {});
Rows query(std::string_view sql, const std::vector<Text>& parameters);

// As query(), for a statement whose plan is not worth keeping.
Rows query_once(const std::string& sql, const std::vector<Text>& parameters = {});

}  // namespace zdm::pg
