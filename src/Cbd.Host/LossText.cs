using Cbd.Host.Devices;
using Cbd.Protocol.Blkdevs;
using Cbd.Memory;

namespace Cbd.Host;

/// <summary>The words for <see cref="OnBackendLoss"/> on command lines and in JSON.</summary>
internal static class LossText
{
    public const string Queue = "queue";
    public const string Fail = "fail";

    public static string Of(OnBackendLoss action) => action == OnBackendLoss.Fail ? Fail : Queue;

    /// <exception cref="CbdException">It is neither.</exception>
    public static OnBackendLoss Parse(string word) => word switch
    {
        Queue => OnBackendLoss.Queue,
        Fail => OnBackendLoss.Fail,
        _ => throw new CbdException(CbdErrorKind.Invalid, $"on_backend_loss is '{word}': use {Queue} or {Fail}"),
    };
}
