"""gdn: the Gated DeltaNet operators of libgdn on numpy arrays and DLPack tensors.

    import gdn
    core, z = gdn.attention(qkvz, ba, conv_state, ssm_state, conv_weights, A_log, dt_bias,
                            n_k_head=16, n_v_head=32, dk=128, dv=128,
                            non_spec_query_start_loc=[0, 100], non_spec_state_indices=[3])

`import gdn.torch` registers the operators with PyTorch under the names that vLLM calls."""
import sys

try:
    from ._lib import Error, lib as _c
    from .arrays import as_type
    from .op import (Device, Weight, attention, attention_layer, causal_conv1d, default_device,
                     delta_rule, rms_norm_gated, set_default_device)
except ImportError:
    # "-m" while Python looks for the module to run: gdn.build has to start without a library.
    if sys.argv[:1] != ["-m"]:
        raise

__version__ = "0.1.0"
__all__ = ["Device", "Error", "Weight", "as_type", "attention", "attention_layer",
           "causal_conv1d", "default_device", "delta_rule", "library_version", "rms_norm_gated",
           "set_default_device"]


def library_version():
    return _c.gdn_version().decode()
