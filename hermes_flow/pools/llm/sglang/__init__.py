"""SGLang's scheduler: prefill steps before decode steps, a radix tree of pages, and retraction."""
