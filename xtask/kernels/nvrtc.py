"""Compiles CUDA C++ to PTX for compute_80 with NVRTC: nvrtc.py WHEELS INPUT OUTPUT INCLUDE... -- DEFINE...

WHEELS is the folder that the PyPI packages nvidia-cuda-nvrtc-cu12 and nvidia-cuda-runtime-cu12 were unpacked into.
"""

import ctypes
import sys

wheels, source, output, *rest = sys.argv[1:]
split = rest.index("--")
includes, defines = rest[:split], rest[split + 1 :]
nvrtc = ctypes.CDLL(f"{wheels}/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
options = ["--gpu-architecture=compute_80", "-std=c++17"]
options += [f"-I{folder}" for folder in [*includes, f"{wheels}/nvidia/cuda_runtime/include"]]
options += [f"-D{define}" for define in defines]


def text(size_of, read, program):
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    read(program, buffer)
    return buffer.raw.rstrip(b"\0").decode()


program = ctypes.c_void_p()
with open(source, "rb") as file:
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), file.read(), source.encode(), 0, None, None)
array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).strip()
if log:
    print(log)
if failed:
    sys.exit(1)
with open(output, "w") as file:
    file.write(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program))
