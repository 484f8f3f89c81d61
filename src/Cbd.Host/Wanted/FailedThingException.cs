namespace Cbd.Host.Wanted;

/// <summary>A thing of the record failed for good: nothing starts it again but its stop and a new start.</summary>
internal sealed class FailedThingException(string message) : CbdException(CbdErrorKind.Failed, message);
