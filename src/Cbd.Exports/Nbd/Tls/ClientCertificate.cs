using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>The one place that decides whether a client's certificate opens the door.</summary>
internal static class ClientCertificate
{
    private const string CommonName = "2.5.4.3";

    /// <summary>How chains of clients' certificates are built: from these authorities alone, without the network.</summary>
    internal static X509ChainPolicy ChainPolicy(TlsCredentials credentials)
    {
        var policy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            DisableCertificateDownloads = true,
        };
        policy.CustomTrustStore.AddRange(credentials.Authorities);
        return policy;
    }

    /// <summary>Null if it is good, else why not, as the rest of "TLS: ".</summary>
    /// <param name="certificate">What the client presented; null: nothing.</param>
    /// <param name="chain">Its chain by <see cref="ChainPolicy"/>.</param>
    /// <param name="credentials">What it is checked against.</param>
    /// <param name="errors">What is wrong by the chain.</param>
    /// <param name="allow">The names of which one is needed; empty: any.</param>
    internal static string? FindFault(
        X509Certificate2? certificate, X509Chain? chain, SslPolicyErrors errors, TlsCredentials credentials, IReadOnlyList<string> allow)
    {
        if (certificate is null || chain is null || (errors & SslPolicyErrors.RemoteCertificateNotAvailable) != 0)
            return "it presented no certificate, and one is needed";
        string who = $"its certificate '{Printable(certificate.Subject)}'";
        if (errors != SslPolicyErrors.None)
            return $"{who} {DescribeChain(certificate, chain)}";
        DateTimeOffset now = DateTimeOffset.UtcNow;
        foreach (X509ChainElement element in chain.ChainElements)
        {
            foreach (RevocationList list in credentials.Revocations)
            {
                if (!list.IsFor(element.Certificate))
                    continue;
                if (list.IsOutdated(now))
                    return $"{who} cannot be checked: {TlsCredentials.RevocationsName} should have been replaced by {list.NextUpdate:u}";
                if (list.Has(element.Certificate))
                    return $"{who} was revoked ({TlsCredentials.RevocationsName}: {Printable(element.Certificate.Subject)}, serial number {element.Certificate.SerialNumber})";
            }
        }

        if (allow.Count == 0)
            return null;
        List<string> names = Names(certificate);
        return names.Any(allow.Contains)
            ? null
            : $"{who} has no name that is allowed (it has {(names.Count == 0 ? "none" : string.Join(", ", names.Select(Printable)))})";
    }

    /// <summary>The common names and DNS names of a certificate, as they stand there: they are compared exactly.</summary>
    private static List<string> Names(X509Certificate2 certificate)
    {
        var names = new List<string>();
        foreach (X500RelativeDistinguishedName part in certificate.SubjectName.EnumerateRelativeDistinguishedNames())
        {
            if (!part.HasMultipleElements && part.GetSingleElementType().Value == CommonName && part.GetSingleElementValue() is { } name)
                names.Add(name);
        }

        foreach (X509SubjectAlternativeNameExtension extension in certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>())
            names.AddRange(extension.EnumerateDnsNames());
        return names;
    }

    private static string DescribeChain(X509Certificate2 certificate, X509Chain chain)
    {
        X509ChainStatusFlags flags = chain.ChainStatus.Aggregate(X509ChainStatusFlags.NoError, static (all, status) => all | status.Status);
        if ((flags & (X509ChainStatusFlags.PartialChain | X509ChainStatusFlags.UntrustedRoot | X509ChainStatusFlags.NotSignatureValid)) != 0)
            return $"is not signed by an authority in {TlsCredentials.AuthoritiesName} (its issuer is '{Printable(certificate.Issuer)}')";
        if ((flags & X509ChainStatusFlags.NotTimeValid) != 0)
            return $"is valid from {certificate.NotBefore.ToUniversalTime():u} to {certificate.NotAfter.ToUniversalTime():u} and not now";
        if ((flags & X509ChainStatusFlags.NotValidForUsage) != 0)
            return "is not made for TLS clients (extended key usage)";
        return $"is not valid ({flags})";
    }

    /// <summary>A name as it can stand in a line of the log.</summary>
    private static string Printable(string name)
    {
        string cut = name.Length > 128 ? name[..128] + "…" : name;
        return string.Create(cut.Length, cut, static (text, source) =>
        {
            for (int i = 0; i < text.Length; i++)
                text[i] = char.IsControl(source[i]) ? '?' : source[i];
        });
    }
}
