using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// The TLS of one export. The files are looked at for each new connection and read again when one of them is another, so
/// that certificates are renewed without a restart. Thread-safe.
/// </summary>
internal sealed class TlsServer
{
    private static readonly string[] s_files =
        [TlsCredentials.ServerCertificateName, TlsCredentials.ServerKeyName, TlsCredentials.AuthoritiesName, TlsCredentials.RevocationsName];

    private readonly TlsOptions _options;
    private readonly Action<string> _log;
    private readonly PathRights? _rights;
    private readonly OwnerTrust? _trust;
    private readonly Lock _lock = new();
    private TlsCredentials _credentials;
    private string _stamp;

    /// <exception cref="CbdException">OpenSSL is missing, or a file is; what to do.</exception>
    internal TlsServer(TlsOptions options, Action<string> log, PathRights? rights = null, OwnerTrust? trust = null)
    {
        _rights = rights;
        _trust = trust;
        OpenSslLibrary.Require();
        _options = options;
        _log = log;
        _stamp = Stamp();
        _credentials = TlsCredentials.Read(options, rights, trust);
        Note = _credentials.Note;
    }

    /// <summary>A client without TLS gets nothing.</summary>
    internal bool IsRequired => _options.Require;

    /// <summary>What was noticed in the files at first, in one line; empty if nothing.</summary>
    internal string Note { get; }

    /// <summary>
    /// Does the server's side of a TLS handshake on <paramref name="transport"/>, waiting as the stream does.
    /// </summary>
    /// <exception cref="AuthenticationException">The client is not let in; the message says why.</exception>
    /// <exception cref="IOException">The connection ended.</exception>
    internal SslStream Accept(Stream transport)
    {
        TlsCredentials credentials = Current();
        string? fault = null;
        var stream = new SslStream(transport, leaveInnerStreamOpen: true);
        try
        {
            stream.AuthenticateAsServer(new SslServerAuthenticationOptions
            {
                ServerCertificateContext = credentials.Server,
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                ClientCertificateRequired = _options.VerifyPeer,
                CertificateChainPolicy = ClientCertificate.ChainPolicy(credentials),
                RemoteCertificateValidationCallback = (_, certificate, chain, errors) =>
                {
                    fault = _options.VerifyPeer
                        ? ClientCertificate.FindFault(certificate as X509Certificate2, chain, errors, credentials, _options.Allow)
                        : null;
                    return fault is null;
                },
                // A resumed session would not look at lists and files that changed since.
                AllowTlsResume = false,
                AllowRenegotiation = false,
            });
            return stream;
        }
        catch (AuthenticationException error) when (fault is not null)
        {
            stream.Dispose();
            throw new AuthenticationException(fault, error);
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    private TlsCredentials Current()
    {
        lock (_lock)
        {
            string stamp = Stamp();
            if (stamp == _stamp)
                return _credentials;
            // Also where they cannot be used: what is wrong with them is said once.
            _stamp = stamp;
            try
            {
                _credentials = TlsCredentials.Read(_options, _rights, _trust);
                _log($"the TLS files of '{_options.Certificates}' were read again{(_credentials.Note.Length == 0 ? "" : $"; {_credentials.Note}")}");
            }
            catch (CbdException error)
            {
                _log($"{error.Message}; until then the files that were read before are in use");
            }

            return _credentials;
        }
    }

    /// <summary>Another text whenever one of the files is another.</summary>
    private string Stamp() => string.Join(' ', s_files.Select(name => Describe(Path.Combine(_options.Certificates, name))));

    private string Describe(string path)
    {
        try
        {
            return PathRights.TryGetStatus(_rights, path, out FileStatus status) == 0
                ? $"{status.Device}:{status.Inode}:{status.SizeBytes}:{status.ModifiedNanoseconds}"
                : "-";
        }
        catch (CbdException)
        {
            // Reading them says why, or they stay in use as they are.
            return "?";
        }
    }
}
