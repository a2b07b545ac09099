// Symbols that the server looks up by name. The library is built with hidden visibility, and PGDLLEXPORT is empty on
// PostgreSQL 15, so a pragma stands around them.
#pragma once

#include "pg/postgres.hpp"

// ZDM_FUNCTION(name) { ... uses fcinfo ... }: an SQL-callable function.
#define ZDM_FUNCTION(name)                                            \
    _Pragma("GCC visibility push(default)") extern "C" {              \
        PG_FUNCTION_INFO_V1(name);                                    \
        Datum name(PG_FUNCTION_ARGS);                                 \
    }                                                                 \
    _Pragma("GCC visibility pop") extern "C" Datum name([[maybe_unused]] PG_FUNCTION_ARGS)

// ZDM_EXPORT void f(...): any other exported symbol (worker mains, _PG_init).
#define ZDM_EXPORT extern "C" __attribute__((visibility("default")))
