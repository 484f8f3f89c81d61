namespace Cbd.Protocol.Blkdevs;

/// <summary>What a device's record names is not its own any more: the device fails.</summary>
internal sealed class ClaimGoneException(string message) : CbdException(CbdErrorKind.Failed, message);
