/* module.c - ctserve._core as an extension module: multi-phase, its references in module state. */
#include "room.h"

PyMODINIT_FUNC PyInit__core(void);

static void free_state(void *module)
{
    state_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, state_init},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ctserve._core",
    .m_doc = "The server behind ctserve; used by the package ctserve only.",
    .m_size = sizeof(struct python_state),
    .m_methods = core_methods,
    .m_slots = slots,
    .m_traverse = state_visit,
    .m_clear = state_clear,
    .m_free = free_state,
};

CTS_EXPORT PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
