using System.Runtime.InteropServices;
using Cbd.Memory;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// Whether .NET's TLS can work here: it loads OpenSSL at its first use, and ends the process if there is none. So this
/// is asked before, and nothing else of this process uses it.
/// </summary>
internal static class OpenSslLibrary
{
    /// <summary>What .NET 10 looks for, in its order.</summary>
    private static readonly string[] s_names = ["libssl.so.3", "libssl.so.1.1"];

    /// <exception cref="CbdException">OpenSSL is not there; what to install.</exception>
    internal static void Require()
    {
        foreach (string name in s_names)
        {
            // Never freed: it is about to be used.
            if (NativeLibrary.TryLoad(name, out _))
                return;
        }

        throw new CbdException(
            CbdErrorKind.Unsupported,
            $"TLS needs OpenSSL, and this machine has neither {string.Join(" nor ", s_names)}; install it (Debian: apt-get install libssl3), or leave TLS off");
    }
}
