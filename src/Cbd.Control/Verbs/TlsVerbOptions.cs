using System.CommandLine;
using Cbd.Memory;

namespace Cbd.Control.Verbs;

/// <summary>The options of dev-start that say how its socket is encrypted.</summary>
internal sealed class TlsVerbOptions
{
    private const string Off = "off";
    private const string On = "on";
    private const string Require = "require";

    private readonly Option<string> _mode = VerbOptions.Choice(
        "--tls", null, "TLS for NBD clients: off, on (for those that begin it) or require (for all); by default require with --tls-certificates, else off", "", Off, On, Require);
    private readonly Option<string?> _certificates = VerbOptions.Text(
        "--tls-certificates", null, "directory of server-cert.pem, server-key.pem, ca-cert.pem and, if it is there, ca-crl.pem", "DIR");
    private readonly Option<bool> _verifyPeer = VerbOptions.Flag(
        "--tls-verify-peer", null, "clients need a certificate that ca-cert.pem signed");
    private readonly Option<string[]> _allow = new("--tls-allow")
    {
        Description = "only clients whose certificate has this common name or DNS name; may be given many times",
        HelpName = "NAME",
        Arity = ArgumentArity.OneOrMore,
        AllowMultipleArgumentsPerToken = false,
    };

    internal void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _mode, _certificates, _verifyPeer, _allow })
            command.Options.Add(option);
    }

    /// <summary>Null without TLS.</summary>
    /// <exception cref="CbdException">The options do not go together.</exception>
    internal TlsOptions? Of(ParseResult line)
    {
        string? certificates = line.GetValue(_certificates);
        string mode = line.GetValue(_mode)!;
        if (mode.Length == 0)
            mode = certificates is null ? Off : Require;
        bool verifyPeer = line.GetValue(_verifyPeer);
        string[] allow = line.GetValue(_allow) ?? [];
        if (mode == Off)
        {
            string? given = certificates is not null ? "--tls-certificates" : verifyPeer ? "--tls-verify-peer" : allow.Length != 0 ? "--tls-allow" : null;
            return given is null
                ? null
                : throw new CbdException(CbdErrorKind.Invalid, $"{given} is given and TLS is off; add --tls {Require} and --tls-certificates, or leave it out");
        }

        return new TlsOptions
        {
            Require = mode == Require,
            Certificates = certificates is not null
                ? PathText.DirectoryFromCaller(certificates)
                : throw new CbdException(CbdErrorKind.Invalid, $"--tls is '{mode}' without certificates; name their directory with --tls-certificates"),
            VerifyPeer = verifyPeer,
            Allow = allow,
        };
    }
}
