/*
 * For tests only, never delivered: Rust's standard library asks Windows for randomness by ProcessPrng, which Wine 8.0
 * does not have; without it a program ends silently with code 53. This library lies beside the program under test and
 * passes the question on to a function that Wine has (RtlGenRandom, exported as SystemFunction036).
 */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > 0x10000000 ? 0x10000000 : (ULONG)length;
        if (!SystemFunction036(buffer, part)) {
            return FALSE;
        }
        buffer += part;
        length -= part;
    }
    return TRUE;
}
