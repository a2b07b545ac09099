// Memory contexts as scopes.
#pragma once

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

// Switches to a memory context and back.
class MemoryScope {
  public:
    explicit MemoryScope(MemoryContext context) noexcept : previous_(MemoryContextSwitchTo(context)) {}
    ~MemoryScope() { MemoryContextSwitchTo(previous_); }
    MemoryScope(const MemoryScope&) = delete;
    MemoryScope& operator=(const MemoryScope&) = delete;

  private:
    MemoryContext previous_;
};

// A memory context of our own, deleted with the object. Its parent must outlive the object.
class OwnedContext {
  public:
    explicit OwnedContext(MemoryContext parent = TopMemoryContext)
        : context_(guard([&] { return AllocSetContextCreate(parent, "zdm", ALLOCSET_DEFAULT_SIZES); })) {}
    ~OwnedContext() { MemoryContextDelete(context_); }
    OwnedContext(const OwnedContext&) = delete;
    OwnedContext& operator=(const OwnedContext&) = delete;
    MemoryContext get() const noexcept { return context_; }
    void reset() noexcept { MemoryContextReset(context_); }

  private:
    MemoryContext context_;
};

}  // namespace zdm::pg
